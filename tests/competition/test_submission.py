"""Submissions: exactly the sample's ids, order and columns, and nothing invalid ever gets the name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.competition.sample import Sample
from pipeline.competition.submission import (
    SubmissionFormat,
    SubmissionKind,
    build_submission,
    check_sample,
    resolve_empty,
    validate_submission,
    write_submission,
)
from pipeline.errors import CompetitionError, ConfigError, SubmissionError

WIDE = Sample(Path("sample.csv"), ("id", "b", "ETT - Abnormal"), ("02", "01", "3"))
NAMES = Sample(Path("sample.csv"), ("id", "labels"), ("02", "01", "3"))
LABELS = ("ETT - Abnormal", "b")
IDS = ["01", "02", "3"]  # the predictions' order is not the sample's
PROBABILITIES = np.array([[0.25, 0.5], [1.0, 0.0], [1e-12, 0.125]])
DECISIONS = np.array([[0, 1], [1, 0], [0, 0]], dtype=np.uint8)


def _write(tmp_path: Path, sample: Sample, form: SubmissionFormat) -> Path:
    frame = build_submission(sample, form, id_column="id", ids=IDS, probabilities=PROBABILITIES, decisions=DECISIONS)
    path = tmp_path / "submission.csv"
    write_submission(path, frame, sample, form, id_column="id")
    return path


def test_wide_binary_is_the_samples_ids_order_and_columns(tmp_path: Path) -> None:
    path = _write(tmp_path, WIDE, SubmissionFormat("wide_binary", LABELS))
    assert path.read_bytes() == b"id,b,ETT - Abnormal\n02,0,1\n01,1,0\n3,0,0\n"


def test_wide_probability_keeps_the_digits(tmp_path: Path) -> None:
    path = _write(tmp_path, WIDE, SubmissionFormat("wide_probability", LABELS))
    assert path.read_text() == "id,b,ETT - Abnormal\n02,0,1\n01,0.5,0.25\n3,0.125,1e-12\n"


def test_delimited_joins_names_and_fills_the_empty_row(tmp_path: Path) -> None:
    form = SubmissionFormat("delimited", LABELS, "|", "nothing")
    assert _write(tmp_path, NAMES, form).read_text() == "id,labels\n02,ETT - Abnormal\n01,b\n3,nothing\n"


def test_foreign_ids_and_columns_are_refused() -> None:
    form = SubmissionFormat("wide_binary", LABELS)
    with pytest.raises(CompetitionError, match="1 ids only in the sample"):
        build_submission(
            WIDE, form, id_column="id", ids=["01", "02", "x"], probabilities=PROBABILITIES, decisions=DECISIONS
        )
    with pytest.raises(SubmissionError, match="the columns are not the labels"):
        check_sample(NAMES, form, id_column="id")
    with pytest.raises(SubmissionError, match="one column beside"):
        check_sample(WIDE, SubmissionFormat("delimited", LABELS), id_column="id")


MUTATIONS = [
    ("wide_binary", "02,0,1", "02,0,1.0"),
    ("wide_binary", "02,0,1", "02,0,True"),
    ("wide_binary", "02,0,1", "02,0,"),
    ("wide_binary", "02,0,1", "2,0,1"),
    ("wide_binary", "02,0,1\n01,1,0", "01,1,0\n02,0,1"),
    ("wide_binary", "02,0,1\n", ""),
    ("wide_binary", "3,0,0\n", "3,0,0\n3,0,0\n"),
    ("wide_binary", "id,b", ",id,b"),
    ("wide_binary", "id,b,ETT - Abnormal", "id,ETT - Abnormal,b"),
    ("wide_binary", "02,0,1", "02,0"),
    ("wide_probability", "0.125", "1.25"),
    ("wide_probability", "0.125", "nan"),
    ("wide_probability", "0.125", "inf"),
    ("wide_probability", "0.125", "-0.1"),
    ("wide_probability", "0.125", ""),
    ("delimited", "01,b", "01,b "),
    ("delimited", "01,b", "01,c"),
    ("delimited", "01,b", "01,b b"),
]


@pytest.mark.parametrize(("kind", "right", "wrong"), MUTATIONS)
def test_the_validator_rejects_each_mutation_and_accepts_the_valid_file(
    tmp_path: Path, kind: SubmissionKind, right: str, wrong: str
) -> None:
    labels = ("a", "b") if kind == "delimited" else LABELS
    sample = NAMES if kind == "delimited" else WIDE
    form = SubmissionFormat(kind, labels)
    path = _write(tmp_path, sample, form)
    assert validate_submission(path, sample, form, id_column="id") == []
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong))
    assert validate_submission(path, sample, form, id_column="id")


def test_a_file_that_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    form = SubmissionFormat("wide_binary", LABELS)
    path = _write(tmp_path, WIDE, form)
    path.write_bytes(path.read_bytes().replace(b"ETT", b"\xe9TT"))
    assert validate_submission(path, WIDE, form, id_column="id") == ["it is not UTF-8"]


def test_an_invalid_submission_never_gets_its_name(tmp_path: Path) -> None:
    form = SubmissionFormat("wide_probability", LABELS)
    broken = np.where(PROBABILITIES == 0.125, np.nan, PROBABILITIES)
    frame = build_submission(WIDE, form, id_column="id", ids=IDS, probabilities=broken, decisions=DECISIONS)
    path = tmp_path / "submission.csv"
    path.write_text("the last good one")
    with pytest.raises(SubmissionError, match="would be rejected"):
        write_submission(path, frame, WIDE, form, id_column="id")
    assert path.read_text() == "the last good one"
    assert list(tmp_path.iterdir()) == [path]


def test_what_the_empty_policy_may_say() -> None:
    assert resolve_empty("none", LABELS, "wide_binary") == ("none", "")
    assert resolve_empty("argmax", LABELS, "delimited") == ("argmax", "")
    assert resolve_empty("b", LABELS, "wide_binary") == (1, "")
    assert resolve_empty("nothing", LABELS, "delimited") == ("none", "nothing")
    with pytest.raises(ConfigError, match="cannot stand in a wide_binary"):
        resolve_empty("nothing", LABELS, "wide_binary")


@settings(deadline=None, max_examples=50)
@given(st.permutations(IDS), st.permutations(["b", "ETT - Abnormal"]))
def test_every_cell_follows_its_id_and_label(ids: list[str], columns: list[str]) -> None:
    sample = Sample(Path("s.csv"), ("id", *columns), tuple(ids))
    frame = build_submission(
        sample,
        SubmissionFormat("wide_binary", LABELS),
        id_column="id",
        ids=IDS,
        probabilities=PROBABILITIES,
        decisions=DECISIONS,
    ).set_index("id")
    for row, id_ in enumerate(IDS):
        for column, label in enumerate(LABELS):
            assert frame.loc[id_, label] == str(DECISIONS[row, column])
