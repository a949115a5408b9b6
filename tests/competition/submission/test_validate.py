"""The validator: what the writer wrote is valid, and each thing a scorer rejects is named by line."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.competition.submission import (
    SubmissionFormat,
    SubmissionKind,
    asked_images,
    build_submission,
    keys_for,
    validate_submission,
    write_submission,
)
from pipeline.competition.submission.format import LONG as LONG_KINDS
from pipeline.competition.submission.sample import Sample
from pipeline.errors import SubmissionError
from pipeline.events import ignore
from tests.competition.submission.examples import FORMS, write_example

MUTATIONS: list[tuple[SubmissionKind, str, str, str]] = [
    (
        "wide_binary",
        "02,0,1",
        "02,0,1.0",
        "1 cell is 0 or 1 not written as an integer (line 2, ETT - Abnormal = '1.0')",
    ),
    ("wide_binary", "02,0,1", "02,0,True", "a truth value instead of the integer 0 or 1"),
    ("wide_binary", "02,0,1", "02,0,", "blank instead of the integer"),
    ("wide_binary", "02,0,1", "02,0,0.7", "not the integer 0 or 1 (line 2"),
    ("wide_binary", "02,0,1", "02,0, 1", "not the integer 0 or 1 (line 2"),
    ("wide_binary", "02,0,1", "2,0,1", "'2' on line 2): leading zeros were lost"),
    ("wide_binary", "02,0,1", "02 ,0,1", "blanks around them"),
    ("wide_binary", "02,0,1", "02.jpg,0,1", "a file extension was added"),
    ("wide_binary", "02,0,1", "stranger,0,1", "1 ids are not the sample's ('stranger' on line 2)"),
    ("wide_binary", "02,0,1\n01,1,0", "01,1,0\n02,0,1", "another order: line 2 holds '01' instead of '02'"),
    ("wide_binary", "02,0,1\n", "", "1 ids of the sample are missing ('02')"),
    ("wide_binary", "3.1,0,0\n", "3.1,0,0\n3.1,0,0\n", "1 rows repeat an id ('3.1' on line 5)"),
    ("wide_binary", "id,b,ETT - Abnormal\n02", ",id,b,ETT - Abnormal\n0,02", "index column"),
    ("wide_binary", "id,b,ETT - Abnormal\n", "Unnamed: 0,id,b,ETT - Abnormal\n", "index column"),
    ("wide_binary", "id,b,ETT - Abnormal", "id,ETT - Abnormal,b", "another order: id, ETT - Abnormal, b instead of"),
    ("wide_binary", "id,b,ETT - Abnormal", "id,b,ETT_Abnormal", "without the column ETT - Abnormal, with the foreign"),
    ("wide_binary", "id,b,ETT - Abnormal", "id,b ,ETT - Abnormal", "other blanks around them"),
    ("wide_binary", "id,b,ETT - Abnormal", "id,b,b", "a column twice"),
    ("wide_binary", "id,b,ETT - Abnormal", "id;b;ETT - Abnormal", "separated by semicolons"),
    ("wide_binary", "02,0,1", "02,0", "1 rows do not have 3 cells (line 2)"),
    ("wide_binary", "02,0,1", '02,0,"1', "no CSV from line 2 on"),
    ("wide_probability", "0.125", "1.25", "outside [0, 1] (line 4, b = '1.25')"),
    ("wide_probability", "0.125", "-0.1", "outside [0, 1]"),
    ("wide_probability", "0.125", "nan", "missing or not finite"),
    ("wide_probability", "0.125", "-inf", "missing or not finite"),
    ("wide_probability", "0.125", "", "blank instead of a probability"),
    ("wide_probability", "0.125", "0_1", "not a number"),
    ("wide_probability", "0.125", "0.125 ", "not a number"),
    ("delimited", "01,b", "01,b ", "blanks around the names (line 3, labels = 'b ')"),
    ("delimited", "01,b", "01,c", "not a label: 'c'"),
    ("delimited", "01,b", "01,ETT - Abnormol", "not a label: 'ETT - Abnormol'; did you mean 'ETT - Abnormal'?"),
    ("delimited", "01,b", "01,b|b", "a label twice"),
    ("delimited", "01,b", "01,b||ETT - Abnormal", "a separator without a name"),
    ("delimited", "01,b", "01,b | ETT - Abnormal", "blanks around a name"),
    ("delimited", "3.1,\n", "3.1, \n", "blank where a row without labels holds nothing at all"),
    ("ranked", "01,b|ETT - Abnormal", "01,", "blank instead of names"),
    ("ranked", "01,b|ETT - Abnormal", "01,b|ETT - Abnormal|b", "more than 2 names"),
    ("ranked", "01,b|ETT - Abnormal", "01,b|b", "a label twice"),
    ("ranked", "01,b|ETT - Abnormal", "01,b ", "blanks around the names"),
    ("long_binary", "02_b,0", "02_b,0.0", "0 or 1 not written as an integer"),
    ("long_binary", "02_b,0\n", "", "1 ids of the sample are missing ('02_b')"),
    ("long_probability", "01_b,0.5\n01_ETT - Abnormal,0.25", "01_ETT - Abnormal,0.25\n01_b,0.5", "another order"),
    ("long_probability", "3.1_b,0.125", "3.1_b,2", "outside [0, 1]"),
]


@pytest.mark.parametrize(("kind", "right", "wrong", "message"), MUTATIONS)
def test_each_mutation_of_a_valid_file_is_named(
    tmp_path: Path, kind: SubmissionKind, right: str, wrong: str, message: str
) -> None:
    sample, form = FORMS[kind]
    path = write_example(tmp_path, sample, form)
    assert validate_submission(path, sample, form).errors == ()
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))
    assert message in " and ".join(validate_submission(path, sample, form).errors)


def test_bytes_that_are_no_plain_utf8_are_named(tmp_path: Path) -> None:
    sample, form = FORMS["wide_binary"]
    path = write_example(tmp_path, sample, form)
    good = path.read_bytes()
    path.write_bytes(good.replace(b"02,", b"\xe92,"))
    assert validate_submission(path, sample, form).errors == ("it is not UTF-8 (line 2, byte 20)",)
    path.write_bytes(b"\xef\xbb\xbf" + good)
    (error,) = validate_submission(path, sample, form).errors
    assert "byte order mark" in error
    path.write_bytes(good.decode().encode("utf-16"))
    assert validate_submission(path, sample, form).errors
    path.write_bytes(b"")
    assert validate_submission(path, sample, form).errors == ("it is empty",)


def test_what_only_may_be_wrong_is_a_warning(tmp_path: Path) -> None:
    sample, form = FORMS["delimited"]
    path = write_example(tmp_path, sample, form)
    other = path.rename(tmp_path / "final.csv")
    other.write_text(path.name and other.read_text().removesuffix("\n") + "\n\n\n")
    found = validate_submission(other, sample, form)
    assert found.errors == ()
    assert [warning.split(" (")[0] for warning in found.warnings] == [
        "the file is called final.csv; most scorers ask for submission.csv",
        "2 lines are blank",
        "1 rows have no label and an empty cell",
    ]
    with pytest.raises(SubmissionError, match="cannot be read: No such file"):
        validate_submission(path, sample, form)


def test_many_problems_are_counted_and_not_listed(tmp_path: Path) -> None:
    ids = tuple(str(number) for number in range(1000))
    sample, form = Sample(Path("s.csv"), ("id", "a", "b"), ids), SubmissionFormat("wide_binary", ("a", "b"))
    path = tmp_path / "submission.csv"
    path.write_text("id,a,b\n" + "".join(f"{id_},0.5,1.0\n" for id_ in ids))
    found = validate_submission(path, sample, form)
    assert len(found.errors) == 2
    assert found.errors[0].startswith("1000 cells are not the integer 0 or 1 (line 2, a = '0.5', line 3, a = '0.5', ")
    assert all(len(error) < 200 for error in found.errors)


WORDS = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="|"), min_size=1, max_size=6)
FORMATS = st.sampled_from(tuple(FORMS))


@st.composite
def _competitions(draw: st.DrawFn) -> tuple[Sample, SubmissionFormat, np.ndarray]:
    kind = draw(FORMATS)
    names = draw(st.lists(WORDS, min_size=1, max_size=4, unique=True).filter(lambda names: "id" not in names))
    ids = tuple(draw(st.lists(WORDS, min_size=1, max_size=5, unique=True)))
    form = SubmissionFormat(kind, tuple(names), "|", k=min(2, len(names)))
    columns = ("id", *draw(st.permutations(names))) if kind.startswith("wide") else ("id", "answer")
    sample = Sample(Path("s.csv"), columns, keys_for(ids, form))
    steps = draw(st.lists(st.integers(0, 64), min_size=len(ids) * len(names), max_size=len(ids) * len(names)))
    return sample, form, np.array(steps).reshape(len(ids), len(names)) / 64


def _written(sample: Sample, form: SubmissionFormat, probabilities: np.ndarray, folder: Path) -> Path:
    ids = asked_images(sample, form)
    decisions = (probabilities >= 0.5).astype(np.uint8)
    frame = build_submission(sample, form, ids=ids, probabilities=probabilities, decisions=decisions)
    path = folder / "submission.csv"
    write_submission(path, frame, sample, form, ignore)
    return path


def _drop_row(lines: list[str], at: int) -> list[str]:
    return lines[: 1 + at] + lines[2 + at :]


def _double_row(lines: list[str], at: int) -> list[str]:
    return [*lines, lines[1 + at]]


def _swap_rows(lines: list[str], at: int) -> list[str]:
    return [lines[0], *lines[1 + at :], *lines[1 : 1 + at]] if at else [lines[0], *lines[:0:-1]]


def _index_column(lines: list[str], _at: int) -> list[str]:
    return [f",{lines[0]}", *(f"{number},{line}" for number, line in enumerate(lines[1:]))]


def _spoil_end(text: str) -> Callable[[list[str], int], list[str]]:
    return lambda lines, at: [line + text if number == 1 + at else line for number, line in enumerate(lines)]


def _spoil_header(lines: list[str], _at: int) -> list[str]:
    return [f"{lines[0]} ", *lines[1:]]


SPOILERS = {
    "a row less": _drop_row,
    "a row twice": _double_row,
    "other order": _swap_rows,
    "index column": _index_column,
    "a trailing blank": _spoil_end(" "),
    "a cell more": _spoil_end(",0"),
    "not a value": _spoil_end("x?"),
    "other header": _spoil_header,
}


@settings(deadline=None, max_examples=200)
@given(_competitions(), st.sampled_from(tuple(SPOILERS)), st.data())
def test_the_writers_file_is_valid_and_a_spoilt_one_is_not(
    competition: tuple[Sample, SubmissionFormat, np.ndarray], spoiler: str, data: st.DataObject
) -> None:
    sample, form, probabilities = competition
    with tempfile.TemporaryDirectory() as folder:
        path = _written(sample, form, probabilities, Path(folder))
        assert validate_submission(path, sample, form).errors == ()
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        at = data.draw(st.integers(0, len(lines) - 2))
        spoilt = SPOILERS[spoiler](lines, at)
        if spoilt == lines:  # one row has no other order
            return
        path.write_bytes("".join(f"{line}\n" for line in spoilt).encode())
        assert validate_submission(path, sample, form).errors


@pytest.mark.parametrize("kind", FORMS)
def test_a_file_cut_off_anywhere_is_noticed(tmp_path: Path, kind: SubmissionKind) -> None:
    sample, form = FORMS[kind]
    path = write_example(tmp_path, sample, form)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        found = validate_submission(path, sample, form)
        assert found.errors or any("cut off" in warning for warning in found.warnings), length


def test_all_kinds_are_tried() -> None:
    assert {kind for kind, *_ in MUTATIONS} == set(FORMS)
    assert set(LONG_KINDS) < set(FORMS)
