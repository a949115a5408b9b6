"""Cells that hold several values: vectors of 0 and 1, lists, and several columns of names."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.competition.labels.list_cells import kind_of_cells
from pipeline.errors import CompetitionError
from tests.competition.labels.competition import read

ROWS = np.array([[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
WRITTEN = {
    "[0, 1, 1, 0]": lambda row: str(row.tolist()),
    "0 1 1 0": lambda row: " ".join(map(str, row)),
    "0110": lambda row: "".join(map(str, row)),
    "(0, 1, 1, 0)": lambda row: str(tuple(row.tolist())),
    "['0', '1', '1', '0']": lambda row: str([str(value) for value in row]),
    "[0. 1. 1. 0.]": lambda row: str(row.astype(float)),
    "[0 1 1 0]": lambda row: str(row),
    "[False, True, True, False]": lambda row: str(row.astype(bool).tolist()),
    "array([0., 1., 1., 0.])": lambda row: repr(row.astype(float)),
    "tensor([0., 1.])": lambda row: f"tensor([{', '.join(f'{value}.' for value in row)}])",
    "0;1;1;0": lambda row: ";".join(map(str, row)),
    "0|1|1|0": lambda row: "|".join(map(str, row)),
    "dict": lambda row: str(dict(zip("wxyz", row.tolist(), strict=True))),
}
NAMES = {"classes": ["w", "x", "y", "z"]}


def _table(cells: list[str], name: str = "y") -> dict[str, str]:
    file = io.StringIO()
    csv.writer(file).writerows([["id", name], *([f"i{row}", cell] for row, cell in enumerate(cells))])
    return {"train.csv": file.getvalue()}


def _with_remedy(error: CompetitionError, labels: dict[str, Any]) -> dict[str, Any]:
    """The labels as the remedy wants them: every `competition.labels.key: value` in it is set."""
    found = re.findall(r"competition\.labels\.(\w+)(?:: | to )(\[[^\]]*\]|\w+)", error.remedy)
    assert found, error.remedy
    set_ = {key: yaml.safe_load(value) for key, value in found if value != "the"}
    return {**labels, **set_}


@pytest.mark.parametrize("cells", ["joined", "list"])
@pytest.mark.parametrize("way", WRITTEN)
def test_vectors_are_refused_as_names_and_read_by_position(tmp_path: Path, way: str, cells: str) -> None:
    files = _table([WRITTEN[way](row) for row in ROWS])
    labels: dict[str, Any] = {"format": "delimited", "column": "y", "cells": cells}
    with pytest.raises(CompetitionError, match="vectors with a 0 or 1") as caught:
        read(tmp_path, labels, files)
    labels = _with_remedy(caught.value, labels)
    assert labels["cells"] == "vector"
    if way != "dict":
        with pytest.raises(CompetitionError, match="names of the 4 labels") as caught:
            read(tmp_path, labels, files)
        assert _with_remedy(caught.value, labels)["classes"] == ["class_0", "class_1", "class_2", "class_3"]
        labels = {**_with_remedy(caught.value, labels), **NAMES}
    table = read(tmp_path, labels, files)
    assert table.labels == ("w", "x", "y", "z")
    np.testing.assert_array_equal(table.targets, ROWS)


def test_the_columns_of_a_wide_sample_name_the_values(tmp_path: Path) -> None:
    files = {**_table(["0 1", "1 1"]), "sample_submission.csv": "id,dog,cat\n9,0,0\n"}
    table = read(tmp_path, {"format": "delimited", "column": "y", "cells": "vector"}, files)
    assert (table.labels, table.targets.tolist()) == (("dog", "cat"), [[0, 1], [1, 1]])


@pytest.mark.parametrize(
    ("cells", "part"),
    [
        (["[0, 1, 1, 0]", "[0, 1, 1]"], "3 values"),
        (["0110", "110"], "zeros in front were lost"),
        (["[0, 1, 1, 0]", "[0, 1, 2, 0]"], "'2' is not 0 or 1"),
        (["[0, 1, 1, 0]", "[0, 1, 0.5, 0]"], "'0.5' is not 0 or 1"),
        (["[0, 1, 1, 0]", "nan"], "empty_tokens: ['nan']"),
    ],
)
def test_a_wrong_vector_is_named_and_its_remedy_does_not_lead_back(tmp_path: Path, cells: list[str], part: str) -> None:
    labels: dict[str, Any] = {"format": "delimited", "column": "y", "cells": "vector", **NAMES}
    with pytest.raises(CompetitionError, match="remedy") as caught:
        read(tmp_path, labels, _table(["0110", "[1, 1, 1, 1]", *cells] if "0110" not in cells else cells))
    assert part in str(caught.value)
    assert "labels.cells" not in caught.value.remedy


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["25 2", "0"], "joined"),
        (["0 1", "1", "0"], "joined"),
        (["0", "1", "1"], "joined"),
        (["1", "10", "0"], "joined"),
        (["['cat', 'dog']", "['cat']", "[]"], "list"),
        (["[3, 12]", ""], "list"),
        (["[old]", "cat", "dog"], "joined"),
        (["1100", "101", "0"], "vector"),
        (["0 1", "1 0"], "vector"),
        (["", "nan"], "joined"),
        (['{"choices": ["cat"]}', "{'choices': ['dog']}"], "joined"),
        (["{'cat': 1}", "{'cat': False}"], "vector"),
    ],
)
def test_the_kind_of_cells(cells: list[str], kind: str) -> None:
    assert kind_of_cells(cells) == kind


def test_no_two_remedies_name_each_other(tmp_path: Path) -> None:
    for cells in (["['a', 'b']", "['a']"], ["a b", "a"], ["[1.5, 2.0]", "[2.0]"], ["[0.0, 0.7]", "[1.0, 0.0]"]):
        files, kinds = _table(cells), {"joined", "list", "vector"}
        refused = {}
        for kind in kinds:
            try:
                read(tmp_path, {"format": "delimited", "column": "y", "cells": kind, "classes": None}, files)
            except CompetitionError as error:
                named = re.search(r"labels\.cells: (\w+)", error.remedy)
                refused[kind] = named.group(1) if named else ""
        assert len({*refused.values()} - {""}) == 1, refused
        assert refused.get(next(iter({*refused.values()} - {""})), "") == ""


def test_single_lists_among_joined_names_are_refused(tmp_path: Path) -> None:
    labels = {"format": "delimited", "column": "y"}
    with pytest.raises(CompetitionError, match="the labels of 'i2' are not written as a text: it is a list"):
        read(tmp_path, labels, _table(["a b", "a", "['b']"]))
    with pytest.raises(CompetitionError, match="it is an object with keys and values"):
        read(tmp_path, labels, _table(['{"choices": ["cat", "dog"]}', "a"]))
    assert read(tmp_path, labels, _table(["a", "b", "[old]"])).labels == ("[old]", "a", "b")


@pytest.mark.parametrize("cells", [["[1.0, 9.0]", "[9.0]"], ["(1.0, 9)", "[9.0]"]])
def test_whole_floats_are_integers(tmp_path: Path, cells: list[str]) -> None:
    table = read(tmp_path, {"format": "delimited", "column": "y", "cells": "list"}, _table(cells))
    assert (table.labels, table.targets.tolist()) == (("1", "9"), [[1, 1], [0, 1]])


def test_several_columns_of_names(tmp_path: Path) -> None:
    text = "id,label_1,label_2,label_3\na,cat,dog,\nb,dog,dog,none\nc,,,\n"
    labels = {"format": "columns", "columns": ["label_1", "label_2", "label_3"], "empty_tokens": ["none"]}
    table = read(tmp_path, labels, {"train.csv": text})
    assert (table.labels, table.targets.tolist()) == (("cat", "dog"), [[1, 1], [0, 1], [0, 0]])
    ignored = read(tmp_path, {**labels, "missing": "ignore"}, {})
    assert np.isnan(ignored.targets[2]).all()
    with pytest.raises(CompetitionError, match="no column 'label_4'"):
        read(tmp_path, {**labels, "columns": ["label_4"]}, {})
