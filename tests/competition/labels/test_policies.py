"""Uncertain and missing cells, soft and exclusive labels, corrected and excluded rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.competition.table import TrainTable
from pipeline.config import CompetitionConfig
from pipeline.errors import CompetitionError
from tests.competition.labels.competition import read, read_noted

NAN = np.nan
CHEXPERT = "Path,Sex,Atelectasis,Edema\np1/s1.jpg,Female,-1.0,1.0\np2/s1.jpg,Male,,-1\np3/s1.jpg,Male,0.0,\n"
COLUMNS = ["Atelectasis", "Edema"]


def _read(tmp_path: Path, **keys: Any) -> tuple[TrainTable, str]:
    return read_noted(tmp_path, {"columns": COLUMNS, **keys}, {"train.csv": CHEXPERT}, id="Path")


def test_policies_for_all_labels_and_by_label(tmp_path: Path) -> None:
    table, notes = _read(tmp_path, uncertain={"default": "ignore", "Atelectasis": "ones"}, missing="zeros")
    np.testing.assert_array_equal(table.targets, [[1, 1], [0, NAN], [0, 0]])
    assert "uncertain label cells: 1 count as positive, 0 as negative, 1 as unknown" in notes
    assert "missing label cells: 0 count as positive, 2 as negative, 0 as unknown" in notes
    assert "not labels: Sex" in notes
    table, _ = _read(tmp_path, uncertain="zeros", missing="ignore")
    np.testing.assert_array_equal(table.targets, [[0, 1], [NAN, 0], [0, NAN]])


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"missing": "zeros"}, "labels.uncertain sets the value of"),
        ({"uncertain": "ones"}, "labels.missing sets the value of"),
        ({"uncertain": {"Edema": "ones"}, "missing": "ones"}, "p1/s1.jpg/Atelectasis = '-1.0'"),
        ({"uncertain": {"Edemma": "ones"}, "missing": "ones"}, "there is no label 'Edemma'; did you mean 'Edema'?"),
        ({"uncertain": "ones", "missing": "ones", "uncertain_values": ["u"]}, "p1/s1.jpg/Atelectasis = '-1.0'"),
    ],
)
def test_a_cell_without_a_policy_is_refused(tmp_path: Path, keys: dict[str, Any], part: str) -> None:
    with pytest.raises(CompetitionError, match="remedy") as caught:
        _read(tmp_path, **keys)
    assert part in str(caught.value)


def test_soft_labels_are_positives_from_one_half_on(tmp_path: Path) -> None:
    files = {"train.csv": "id,a,b,c\n1,0.5,0.49,\n2,1,0,.75\n"}
    labels = {"columns": ["a", "b", "c"], "soft": True, "missing": "ignore"}
    table = read(tmp_path, labels, files)
    np.testing.assert_array_equal(table.targets, np.array([[0.5, 0.49, NAN], [1, 0, 0.75]], dtype=np.float32))
    np.testing.assert_array_equal(table.positives, [[1, 0, 0], [1, 0, 1]])
    np.testing.assert_array_equal(table.truths, [[1, 0, NAN], [1, 0, 1]])
    with pytest.raises(CompetitionError, match=r"1/a = '0\.5'"):
        read(tmp_path, {**labels, "soft": False}, {})
    with pytest.raises(CompetitionError, match=r"1/a = '1\.5'"):
        read(tmp_path, labels, {"train.csv": "id,a,b,c\n1,1.5,0,1\n"})


def test_truths_are_integers_where_all_is_known(tmp_path: Path) -> None:
    table = read(tmp_path, {"columns": ["a"]}, {"train.csv": "id,a\n1,True\n2,false\n"})
    assert table.truths.dtype == np.uint8
    assert table.truths.tolist() == [[1], [0]]


def test_without_a_wide_sample_the_candidates_are_listed(tmp_path: Path) -> None:
    files = {"train.csv": "id,fractured,age,C1\n1,1,44,0\n2,0,9,0\n", "sample_submission.csv": "row_id,yes\n1_C1,0.5\n"}
    with pytest.raises(CompetitionError, match=r"labels\.columns: \[fractured, C1"):
        read(tmp_path, {}, files)
    with pytest.raises(CompetitionError, match="no sample submission"):
        read(tmp_path, {}, {}, sample_submission=None)
    with pytest.raises(CompetitionError, match=r"competition\.labels\.format"):
        read(tmp_path, {}, {"train.csv": "id,tags\n1,cat\n"})
    table = read(tmp_path, {"columns": ["C1", "fractured"]}, files)
    assert table.labels == ("C1", "fractured")


def test_rows_that_break_an_exclusive_set_are_noted(tmp_path: Path) -> None:
    labels = {"format": "delimited", "column": "t", "exclusive": [["healthy", "scab"]]}
    table, notes = read_noted(tmp_path, labels, {"train.csv": "id,t\n1,healthy\n2,healthy scab\n3,scab rust\n"})
    assert "1 rows have several of the exclusive labels healthy, scab: 2" in notes
    assert table.targets.sum() == 5
    with pytest.raises(CompetitionError, match="did you mean 'healthy'"):
        read(tmp_path, {**labels, "exclusive": [["helthy", "scab"]]}, {})


TWO = "id,a,b,site\n1,0,1,A\n2,1,1,B\n3,0,0,C\n"


def test_corrections_and_excluded_rows_are_applied_and_counted(tmp_path: Path) -> None:
    files = {
        "train.csv": TWO,
        "fix.csv": "label,value,id\na,1,1\nb,unknown,1\na,1,2\na,0,77\n",
        "out.csv": "id,why\n3,broken\n99,gone\n",
    }
    keys: dict[str, Any] = {"corrections": "fix.csv", "exclude": "out.csv", "groups": {"column": "site"}}
    table, notes = read_noted(tmp_path, {"columns": ["a", "b"]}, files, **keys)
    assert (table.ids, table.groups) == (("1", "2"), ("A", "B"))
    assert [path for (path,) in table.paths] == [tmp_path / "1", tmp_path / "2"]
    np.testing.assert_array_equal(table.targets, [[1, NAN], [1, 1]])
    for part in (
        "fix.csv: 2 label cells are corrected, 2 corrections change nothing",
        "fix.csv: 1 ids are not in the training table: 77",
        "competition.exclude: 1 of 3 rows are left out",
        "competition.exclude: 1 ids are not in the training table: 99",
    ):
        assert part in notes, part
    left = read(tmp_path, {"columns": ["a"]}, {}, exclude=[1])
    assert (left.ids, left.targets.tolist()) == (("2", "3"), [[1.0], [0.0]])
    with pytest.raises(CompetitionError, match="leaves no row"):
        read(tmp_path, {"columns": ["a"]}, {}, exclude=["1", "2", "3"])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("id,label,value\n1,c,1\n", "there is no label 'c'"),
        ("id,label,value\n1,a,2\n", "'2'"),
        ("id,label,value\n1,a,1\n1,a,0\n", "'1' and '0'"),
        ("id,label\n1,a\n", "there is no column 'value'"),
    ],
)
def test_each_broken_correction_has_its_message(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(CompetitionError, match="remedy") as caught:
        read(tmp_path, {"columns": ["a", "b"]}, {"train.csv": TWO, "fix.csv": text}, corrections="fix.csv")
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"labels": {"exclusive": [["a"]]}}, "two or more different labels"),
        ({"labels": {"format": "long"}}, "set column"),
        ({"labels": {"format": "per_class", "files": "x.txt"}}, "label"),
        ({"encoding": "no-such"}, "an encoding that Python knows"),
        ({"delimiter": ";;"}, "one character"),
    ],
)
def test_configs_that_make_no_sense_are_refused(keys: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        CompetitionConfig.model_validate(keys)
