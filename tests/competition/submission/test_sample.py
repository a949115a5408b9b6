"""The sample's own cells pass the check of a submission, and each remedy for them leads on."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.competition.submission import (
    SubmissionFormat,
    build_submission,
    check_sample,
    submission_form,
    validate_submission,
    write_submission,
)
from pipeline.competition.submission.sample import Sample, read_sample
from pipeline.config import CompetitionConfig, SubmissionConfig
from pipeline.errors import CompetitionError, SubmissionError
from pipeline.events import ignore
from tests.competition.labels.competition import competition, read

LABELS = ("cat", "dog", "owl")


def _form(
    root: Path, header: Sequence[str], rows: Sequence[Sequence[str]], labels: Sequence[str] = LABELS, **keys: Any
) -> tuple[Sample, SubmissionFormat]:
    with (root / "sample_submission.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *([f"i{row}", *parts] for row, parts in enumerate(rows))])
    config = CompetitionConfig.model_validate({"root": str(root), "id": header[0]})
    return read_sample(config), submission_form(SubmissionConfig.model_validate(keys), config, tuple(labels))


def _written(root: Path, sample: Sample, form: SubmissionFormat, decisions: list[list[int]]) -> list[list[str]]:
    frame = build_submission(
        sample,
        form,
        ids=sample.ids,
        probabilities=np.array(decisions) * 0.5,
        decisions=np.array(decisions, dtype=np.uint8),
    )
    write_submission(root / "submission.csv", frame, sample, form, ignore)
    assert not validate_submission(root / "submission.csv", sample, form).errors
    with (root / "submission.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


LAYOUTS = {  # the sample's cell, the key that its remedy names, and the cell for cat and owl
    "['cat', 'dog']": ("cells: list", "['cat', 'owl']"),
    '["cat","dog"]': ("cells: list", '["cat","owl"]'),
    "('cat', 'dog')": ("cells: list", "('cat', 'owl')"),
    "[0, 1, 1]": ("cells: vector", "[1, 0, 1]"),
    "0 1 1": ("cells: vector", "1 0 1"),
    "011": ("cells: vector", "101"),
    "[0. 1. 1.]": ("cells: vector", "[1. 0. 1.]"),
    "[False, True, True]": ("cells: vector", "[True, False, True]"),
    "['0', '1', '1']": ("cells: vector", "['1', '0', '1']"),
    "cat|dog": ("separator: '|'", "cat|owl"),
    "cat, dog": ("separator: ', '", "cat, owl"),
}


@pytest.mark.parametrize("cell", LAYOUTS)
def test_the_cells_of_the_sample_set_the_punctuation(tmp_path: Path, cell: str) -> None:
    key, wanted = LAYOUTS[cell]
    with pytest.raises(SubmissionError, match="would be rejected") as caught:
        check_sample(*_form(tmp_path, ("id", "y"), [[cell], [""]], format="delimited"))
    assert f"set submission.{key}" in caught.value.remedy
    sample, form = _form(tmp_path, ("id", "y"), [[cell], [""]], format="delimited", **yaml.safe_load(key))
    assert _written(tmp_path, sample, form, [[1, 0, 1], [0, 1, 0]])[0][1] == wanted


def test_lists_of_numbers_have_no_quotes_and_an_empty_list_is_a_list(tmp_path: Path) -> None:
    cells = [["[1, 9]"], ["[]"]]
    sample, form = _form(tmp_path, ("id", "y"), cells, labels=("1", "9", "51"), format="delimited", cells="list")
    assert _written(tmp_path, sample, form, [[1, 0, 1], [0, 0, 0]]) == [["i0", "[1, 51]"], ["i1", "[]"]]


@pytest.mark.parametrize(
    ("keys", "cells", "change"),
    [
        ({"format": "wide_binary"}, ["0.5", "0.25", "1"], {"format": "wide_probability"}),
        ({"format": "ranked", "k": 1}, ["cat owl"], {"k": 2}),
        ({"format": "delimited"}, ["nothing"], {"empty": "nothing"}),
        ({"format": "delimited", "separator": "|"}, ["cat owl"], {"separator": " "}),
    ],
)
def test_a_remedy_for_cells_leads_on(
    tmp_path: Path, keys: dict[str, Any], cells: list[str], change: dict[str, Any]
) -> None:
    header = ("id", *LABELS) if len(cells) == len(LABELS) else ("id", "y")
    with pytest.raises(SubmissionError, match="would be rejected") as caught:
        check_sample(*_form(tmp_path, header, [cells], **keys))
    ((key, value),) = change.items()
    assert re.search(rf"submission\.{key}: '?{re.escape(str(value))}'?", caught.value.remedy)
    check_sample(*_form(tmp_path, header, [cells], **{**keys, **change}))


def test_placeholders_are_refused_until_they_are_blank(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="a copy where they are blank"):
        check_sample(*_form(tmp_path, ("id", "y"), [["label1 label2"], ["x"]], format="delimited"))
    check_sample(*_form(tmp_path, ("id", "y"), [[""], [""]], format="delimited"))
    check_sample(*_form(tmp_path, ("id", *LABELS), [["0.0", "1.0", "0"]], format="wide_binary"))


def test_further_columns_are_constants_and_labels_that_are_not_asked_for_are_left_out(tmp_path: Path) -> None:
    header, cells = ("id", "y", "osd"), [["cat", "0.5"], ["dog", "0.5"]]
    with pytest.raises(SubmissionError, match="one column beside 'id'") as caught:
        check_sample(*_form(tmp_path, header, cells, format="delimited"))
    constants = re.search(r"submission\.constants: (\{.*?\})", caught.value.remedy)
    assert constants
    sample, form = _form(tmp_path, header, cells, format="delimited", constants=yaml.safe_load(constants.group(1)))
    assert _written(tmp_path, sample, form, [[1, 0, 0], [0, 1, 1]]) == [["i0", "cat", "0.5"], ["i1", "dog owl", "0.5"]]
    wide = ("id", "owl", "cat", "split")
    with pytest.raises(SubmissionError, match="columns are not the labels") as caught:
        check_sample(*_form(tmp_path, wide, [["0", "0", "test"]], format="wide_binary"))
    assert "constants: {split: test}" in caught.value.remedy
    keys: dict[str, Any] = {"format": "wide_binary", "constants": {"split": "test"}}
    sample, form = _form(tmp_path, wide, [["0", "0", "test"]], **keys)
    assert _written(tmp_path, sample, form, [[1, 1, 0]]) == [["i0", "0", "1", "test"]]
    path = tmp_path / "submission.csv"
    path.write_text(path.read_text().replace("test", "train"))
    assert "not the constant 'test'" in validate_submission(path, sample, form).errors[0]
    with pytest.raises(SubmissionError, match=r"no column 'x' for submission\.constants"):
        check_sample(*_form(tmp_path, wide, [["0", "0", "a"]], format="wide_binary", constants={"x": 1}))


def test_no_two_remedies_for_the_header_name_each_other(tmp_path: Path) -> None:
    for header in (("id", "a", "b"), ("id", "cat", "osd"), ("id", "y"), ("id", "cat", "dog")):
        cells = [["0"] * (len(header) - 1)]
        remedies = {}
        for kind in ("delimited", "wide_binary"):
            try:
                check_sample(*_form(tmp_path, header, cells, format=kind))
            except SubmissionError as error:
                remedies[kind] = error.remedy
        assert not ("wide" in remedies.get("delimited", "") and "delimited" in remedies.get("wide_binary", ""))


def test_a_sample_in_another_unicode_form_keeps_its_own(tmp_path: Path) -> None:
    label, id_ = (unicodedata.normalize("NFD", text) for text in ("고양이", "é"))
    (tmp_path / "sample_submission.csv").write_text(f"id,{label},dog\n{id_}1,0,0\n", encoding="utf-8")
    config = CompetitionConfig.model_validate({"root": str(tmp_path)})
    sample = read_sample(config)
    assert sample.ids == (unicodedata.normalize("NFC", f"{id_}1"),)
    form = submission_form(SubmissionConfig(), config, (unicodedata.normalize("NFC", label), "dog"))
    frame = build_submission(
        sample, form, ids=sample.ids, probabilities=np.zeros((1, 2)), decisions=np.zeros((1, 2), np.uint8)
    )
    write_submission(tmp_path / "submission.csv", frame, sample, form, ignore)
    assert (tmp_path / "submission.csv").read_text(encoding="utf-8") == f"id,{label},dog\n{id_}1,0,0\n"
    path = tmp_path / "submission.csv"
    path.write_text(unicodedata.normalize("NFC", path.read_text(encoding="utf-8")), encoding="utf-8")
    assert validate_submission(path, sample, form).errors


def test_numbers_without_training_images_may_be_in_the_sample_but_not_vectors(tmp_path: Path) -> None:
    check_sample(*_form(tmp_path, ("id", "y"), [["0"], ["0 51"]], labels=("1", "9"), format="delimited"))
    with pytest.raises(SubmissionError, match="a vector with a 0 or 1"):
        check_sample(*_form(tmp_path, ("id", "y"), [["011"], ["010"]], labels=("1", "9", "51"), format="delimited"))


def test_blanks_in_the_header_belong_to_the_file_and_not_to_the_labels(tmp_path: Path) -> None:
    sample, form = _form(tmp_path, ("id", " cat", "dog ", " owl"), [["0", "1", "0"]], format="wide_binary")
    assert sample.columns == ("id", "cat", "dog", "owl")
    _written(tmp_path, sample, form, [[1, 0, 1]])
    assert (tmp_path / "submission.csv").read_text() == "id, cat,dog , owl\ni0,1,0,1\n"
    (tmp_path / "submission.csv").write_text("id,cat,dog,owl\ni0,1,0,1\n")
    assert "other blanks" in validate_submission(tmp_path / "submission.csv", sample, form).errors[0]


def test_labels_that_a_wide_sample_does_not_ask_for_can_be_trained(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("id,tags\n1,cat dog\n2,owl\n")
    sample, _ = _form(tmp_path, ("id", "owl", "cat"), [["0", "0"]])
    labels: dict[str, Any] = {"format": "delimited", "column": "tags"}
    with pytest.raises(CompetitionError, match="unknown label 'dog'") as caught:
        read(tmp_path, labels, {})
    assert "list all labels in classes" in caught.value.remedy
    table = read(tmp_path, {**labels, "classes": list(LABELS)}, {})
    form = submission_form(SubmissionConfig(), competition(tmp_path, labels), table.labels)
    assert _written(tmp_path, sample, form, [[1, 1, 0]]) == [["i0", "0", "1"]]
