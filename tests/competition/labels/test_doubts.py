"""Labels that are read as written, but are likely not what was meant: each has a note with a remedy that helps."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.competition.table import read_train
from pipeline.events import Note
from tests.competition.labels.competition import competition, read, read_noted

TAGS: dict[str, Any] = {"format": "delimited", "column": "tags"}


def _doubts(root: Path, labels: dict[str, Any], text: str) -> dict[str, Note]:
    (root / "train.csv").write_text(text, encoding="utf-8")
    found: list[Note] = []
    read_train(competition(root, labels), lambda event: found.append(event) if isinstance(event, Note) else None)
    return {note.kind: note for note in found if note.remedy}


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "null", "NA", "N/A", "-", "<NA>", "#N/A"])
def test_a_word_for_a_missing_value_is_doubted_and_its_remedy_removes_it(tmp_path: Path, word: str) -> None:
    for labels, name in ((TAGS, "tags"), ({"format": "long", "label_column": "tags"}, "tags")):
        text = f"id,{name}\na,cat\nb,{word}\nc,dog\n"
        note = _doubts(tmp_path, labels, text)["label_for_nothing"]
        tokens = re.search(r"empty_tokens: (\[[^\]]*\])", note.remedy)
        assert tokens
        table = read(tmp_path, {**labels, "empty_tokens": yaml.safe_load(tokens.group(1))}, {})
        assert (table.labels, table.targets.tolist()) == (("cat", "dog"), [[1, 0], [0, 0], [0, 1]])
    assert not _doubts(tmp_path, {**TAGS, "classes": [word, "cat", "dog"]}, text)


@pytest.mark.parametrize("word", ["nan", "NA", "-", "None"])
def test_a_wide_cell_with_such_a_word_is_missing(tmp_path: Path, word: str) -> None:
    table = read(tmp_path, {"columns": ["a"], "missing": "ignore"}, {"train.csv": f"id,a\n1,{word}\n2,1\n3,0\n"})
    np.testing.assert_array_equal(table.targets, [[np.nan], [1], [0]])


@pytest.mark.parametrize(
    "names",
    [("cat", "Cat"), ("cat", "ca\u200bt"), ("big dog", "big  dog"), ("big dog", "big\u00a0dog"), ("ABC", "\uff21BC")],
)
def test_labels_that_look_alike_are_doubted(tmp_path: Path, names: tuple[str, str]) -> None:
    labels = {**TAGS, "separator": "|"}
    text = f"id,tags\n1,{names[0]}\n2,{names[1]}\n3,owl\n"
    assert "1 labels occur in several spellings" in _doubts(tmp_path, labels, text)["labels_alike"].sentence
    assert "labels_alike" not in _doubts(tmp_path, labels, text.replace(names[1], names[0]))
    wide = f"id,{names[0]},{names[1]}\n1,0,1\n2,1,0\n"
    assert "labels_alike" in _doubts(tmp_path, {"columns": list(names)}, wide)


@pytest.mark.parametrize("name", ["고양이", "café", "Ünder"])
def test_names_and_ids_are_equal_in_every_unicode_form(tmp_path: Path, name: str) -> None:
    nfc, nfd = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    table = read(tmp_path, TAGS, {"train.csv": f"id,tags\n1,{nfc}\n2,{nfd}\n{nfd},x\n"})
    assert (table.labels, table.ids[2]) == (tuple(sorted(["x", nfc])), nfc)
    assert read(tmp_path, {"columns": [nfd]}, {"train.csv": f"id,{nfc}\n1,0\n"}).labels == (nfc,)
    assert read(tmp_path, {"columns": [nfc]}, {"train.csv": f"id,{nfd}\n1,0\n"}).labels == (nfc,)


@pytest.mark.parametrize("cell", ["cat,dog", "cat\uff0cdog", "dog;owl", "cat\u3000dog"])
def test_a_second_separator_is_doubted(tmp_path: Path, cell: str) -> None:
    text = f'id,tags\n1,cat dog\n2,"{cell}"\n3,owl cat\n'
    found = _doubts(tmp_path, TAGS, text)
    assert "hold another separator" in found["labels_torn"].sentence
    assert "labels_torn" not in _doubts(tmp_path, TAGS, text.replace(cell, "cat dog"))


@pytest.mark.parametrize("names", [("label_1", "label_2"), ("tag", "tag_extra"), ("first", "second")])
def test_a_second_column_of_labels_is_doubted_and_its_remedy_reads_both(tmp_path: Path, names: tuple[str, str]) -> None:
    text = f"id,{names[0]},{names[1]},site\n1,cat,dog,A\n2,dog,cat,B\n3,owl,,A\n"
    note = _doubts(tmp_path, {"format": "delimited", "column": names[0]}, text)["label_columns"]
    remedy = yaml.safe_load(note.remedy.split("competition.labels: ")[1])
    table = read(tmp_path, remedy, {})
    assert (table.labels, table.targets.tolist()) == (("cat", "dog", "owl"), [[1, 1, 0], [1, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("labels", "cells"),
    [
        ({"columns": ["a", "b"], "uncertain": "ignore"}, "1,-1,1\n2,1,-1\n3,-1,-1\n"),
        ({"columns": ["a", "b"], "missing": "ignore"}, "1,,1\n2,1,\n3,,\n"),
        ({"columns": ["a", "b"]}, "1,1,1\n2,1,1\n3,1,1\n"),
    ],
)
def test_labels_without_a_known_negative_are_doubted(tmp_path: Path, labels: dict[str, Any], cells: str) -> None:
    note = _doubts(tmp_path, labels, f"id,a,b\n{cells}")["label_without_negative"]
    assert "2 of 2 labels have no known negative" in note.sentence
    zeros = {key: "zeros" for key in labels if key != "columns"}
    if zeros:
        assert not _doubts(tmp_path, {**labels, **zeros}, f"id,a,b\n{cells}")


def test_the_run_prints_the_remedy_too(tmp_path: Path) -> None:
    _, notes = read_noted(tmp_path, TAGS, {"train.csv": "id,tags\n1,nan\n2,cat\n"})
    assert "empty_tokens: ['nan']" in notes
