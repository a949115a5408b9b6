"""Targets written in each format are read back, with unusual names and ids."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.competition.labels import LabelledRows, Targets
from tests.competition.labels.competition import rows_of

LETTERS = st.sampled_from([*"abZ019 -_.,;|'\"[](){}#:&%고양이éß"])
WORDS = st.text(LETTERS, min_size=1, max_size=6).map(str.strip).filter(lambda name: name not in ("", "id", "fold"))
FILE_WORDS = WORDS.filter(lambda name: not name.startswith("."))
VOC = {"0": "-1", "1": "1", "": "0"}
QUICK = settings(deadline=None, max_examples=60)


class Drawn:
    """N ids, K labels and targets (N, K) of 0, 1 and, where allowed, NaN."""

    def __init__(self, data: st.DataObject, *, unknown: bool = False, names: Any = WORDS, ids: Any = WORDS) -> None:
        self.labels: list[str] = data.draw(st.lists(names, min_size=1, max_size=4, unique=True))
        self.ids: list[str] = data.draw(st.lists(ids, min_size=1, max_size=4, unique=True))
        values = [0.0, 1.0, float("nan")] if unknown else [0.0, 1.0]
        rows = st.lists(st.sampled_from(values), min_size=len(self.labels), max_size=len(self.labels))
        table = data.draw(st.lists(rows, min_size=len(self.ids), max_size=len(self.ids)))
        self.targets: Targets = np.array(table, dtype=np.float32)
        self.cells = [["" if np.isnan(value) else f"{value:g}" for value in row] for row in self.targets]

    def triples(self) -> list[tuple[str, str, str]]:
        """Id, label and text of each cell, row by row."""
        rows = zip(self.ids, self.cells, strict=True)
        return [(id_, *cell) for id_, row in rows for cell in zip(self.labels, row, strict=True)]

    def check(self, read: LabelledRows) -> None:
        """What was read is what was drawn."""
        assert read.frame["id"].tolist() == self.ids
        assert read.labels == tuple(self.labels)
        np.testing.assert_array_equal(read.targets, self.targets)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written")


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@QUICK
@given(data=st.data())
def test_wide(folder: Path, data: st.DataObject) -> None:
    drawn = Drawn(data, unknown=True)
    rows = [[id_, *row] for id_, row in zip(drawn.ids, drawn.cells, strict=True)]
    path = _write(folder / "wide.csv", ["id", *drawn.labels], rows)
    drawn.check(rows_of(folder, path, {"columns": drawn.labels, "missing": "ignore"}))


@QUICK
@given(data=st.data(), separator=st.sampled_from([" ", "|", ", ", ";", "##"]))
def test_delimited(folder: Path, data: st.DataObject, separator: str) -> None:
    drawn = Drawn(data)
    assume(not any(separator.strip() in name if separator.strip() else " " in name for name in drawn.labels))
    assume(not any(name.startswith("#") or name.endswith("#") for name in drawn.labels))
    cells = [separator.join(drawn.labels[place] for place in np.flatnonzero(row)) for row in drawn.targets]
    assume(not all(cell[:1] == "[" and cell[-1:] == "]" for cell in cells if cell) or not any(cells))
    path = _write(folder / "delimited.csv", ["id", "tags"], list(zip(drawn.ids, cells, strict=True)))
    labels = {"format": "delimited", "column": "tags", "separator": separator, "classes": drawn.labels}
    drawn.check(rows_of(folder, path, labels))


@QUICK
@given(data=st.data(), python=st.booleans())
def test_lists(folder: Path, data: st.DataObject, python: bool) -> None:
    drawn = Drawn(data)
    names = [[drawn.labels[place] for place in np.flatnonzero(row)] for row in drawn.targets]
    cells = [str(row) if python else json.dumps(row, ensure_ascii=False) for row in names]
    path = _write(folder / "lists.csv", ["id", "tags"], list(zip(drawn.ids, cells, strict=True)))
    labels = {"format": "delimited", "column": "tags", "cells": "list", "classes": drawn.labels}
    drawn.check(rows_of(folder, path, labels))


@QUICK
@given(data=st.data(), separator=st.sampled_from(["_", "-", " ", ".", "__"]))
def test_long(folder: Path, data: st.DataObject, separator: str) -> None:
    drawn = Drawn(data, unknown=True)
    ends = [(one, other) for one in drawn.labels for other in drawn.labels if one.endswith(separator + other)]
    assume(not ends)  # such keys can be split in two ways
    rows = [(f"{id_}{separator}{label}", cell) for id_, label, cell in drawn.triples()]
    path = _write(folder / "long.csv", ["id", "value"], rows)
    labels = {"format": "long", "column": "value", "separator": separator, "missing": "ignore"}
    drawn.check(rows_of(folder, path, {**labels, "classes": drawn.labels}))
    drawn.check(rows_of(folder, path, labels, known=tuple(drawn.labels)))


@QUICK
@given(data=st.data())
def test_long_in_two_columns(folder: Path, data: st.DataObject) -> None:
    drawn = Drawn(data, unknown=True)
    path = _write(folder / "two.csv", ["id", "what", "value"], drawn.triples())
    labels = {"format": "long", "column": "value", "label_column": "what", "missing": "ignore"}
    drawn.check(rows_of(folder, path, {**labels, "classes": drawn.labels}))


@QUICK
@given(data=st.data())
def test_coco(folder: Path, data: st.DataObject) -> None:
    drawn = Drawn(data)
    numbers = sorted(data.draw(st.sets(st.integers(1, 99), min_size=len(drawn.labels), max_size=len(drawn.labels))))
    path = folder / "coco.json"
    content = {
        "images": [{"id": row, "file_name": id_} for row, id_ in enumerate(drawn.ids)],
        "annotations": [
            {"image_id": row, "category_id": numbers[column]}
            for row, column in np.argwhere(drawn.targets == 1).tolist()
        ],
        "categories": [{"id": number, "name": name} for number, name in zip(numbers, drawn.labels, strict=True)],
    }
    path.write_text(json.dumps(content))
    drawn.check(rows_of(folder, path, {"format": "coco"}))


@QUICK
@given(data=st.data())
def test_voc(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    drawn = Drawn(data, unknown=True)
    folder = tmp_path_factory.mktemp("voc")
    for label in drawn.labels:
        lines = [f"{id_} {VOC[cell]:>2}\n" for id_, name, cell in drawn.triples() if name == label]
        (folder / f"{label}_train.txt").write_text("".join(lines), encoding="utf-8")
    drawn.labels, order = sorted(drawn.labels), np.argsort(drawn.labels)
    drawn.targets = drawn.targets[:, order]
    if all(label.isdecimal() for label in drawn.labels):
        return  # numbers are sorted by value, which another test sees
    drawn.check(rows_of(folder, folder, {"format": "voc", "split": "train"}))


@QUICK
@given(data=st.data())
def test_per_class(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    drawn = Drawn(data)
    folder = tmp_path_factory.mktemp("lists")
    for label in drawn.labels:
        lines = [f"{id_}\n" for id_, name, cell in drawn.triples() if name == label and cell == "1"]
        (folder / f"{label}.txt").write_text("".join(lines), encoding="utf-8")
    path = _write(folder / "train.csv", ["id"], [[id_] for id_ in drawn.ids])
    drawn.check(rows_of(folder, path, {"format": "per_class", "files": "{label}.txt", "classes": drawn.labels}))
