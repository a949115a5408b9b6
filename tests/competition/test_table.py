"""From CSVs to tables: strings stay strings, and each mistake has its message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.competition.csvs import read_table
from pipeline.competition.paths import paths_from_template
from pipeline.competition.submission.sample import read_sample, require_same_ids
from pipeline.competition.table import read_train
from pipeline.competition.test_set import read_test
from pipeline.config import CompetitionConfig
from pipeline.errors import CompetitionError
from pipeline.events import ignore


def _competition(root: Path, **keys: object) -> CompetitionConfig:
    return CompetitionConfig.model_validate({"root": str(root), "sample_submission": "sample.csv", **keys})


def _write(root: Path, **files: str) -> None:
    for name, text in files.items():
        (root / f"{name}.csv").write_text(text, encoding="utf-8")


def test_wide_labels_follow_the_sample_and_ids_stay_strings(tmp_path: Path) -> None:
    _write(
        tmp_path,
        train="id,img_path,b,a,PatientID\n007,./x/007.jpg,0,1,p1\n1.2.840,x/1.2.840.jpg,1,0,p2\n",
        sample="id,a,b\n9,0,0\n",
    )
    table = read_train(_competition(tmp_path, groups={"column": "PatientID"}), ignore)
    assert table.ids == ("007", "1.2.840")
    assert table.labels == ("a", "b")
    assert table.groups == ("p1", "p2")
    assert table.paths[0] == (tmp_path / "x/007.jpg",)
    np.testing.assert_array_equal(table.targets, [[1, 0], [0, 1]])


def test_delimited_labels_and_templates_with_ids_that_hold_an_extension(tmp_path: Path) -> None:
    _write(tmp_path, train="image,labels\na.b.jpg,fish eel\nc.jpg,\n", sample="image,labels\nz.jpg,fish\n")
    competition = _competition(
        tmp_path, id="image", images={"template": "img/{id}"}, labels={"format": "delimited", "column": "labels"}
    )
    table = read_train(competition, ignore)
    assert table.labels == ("eel", "fish")
    assert table.paths == ((tmp_path / "img/a.b.jpg",), (tmp_path / "img/c.jpg",))
    np.testing.assert_array_equal(table.targets, [[1, 1], [0, 0]])
    sample = read_sample(competition)
    test = read_test(competition, sample.ids, sample.path)
    assert (test.ids, test.paths) == (("z.jpg",), ((tmp_path / "img/z.jpg",),))


def test_a_template_that_doubles_the_extension_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match=r"write the template as 'img/\{id\}'"):
        paths_from_template("img/{id}.jpg", {"id": ["a.jpg"]}, folders=[tmp_path])
    assert paths_from_template("{id}.jpg", {"id": ["1.2.840"]}, folders=[tmp_path]) == ((tmp_path / "1.2.840.jpg",),)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("\ufeffid,a\r\n01,NA\r\n".encode())
    frame = read_table(path, id_column="id", key="k")
    assert frame.to_dict("list") == {"id": ["01"], "a": ["NA"]}  # not a missing value


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("id,a\n1,0\n1,1\n", "1 ids occur more than once"),
        ("id,a\n,0\n", "column 'id' is empty in 1 rows"),
        ("ids,a\n1,0\n", "there is no column 'id'; did you mean 'ids'?"),
        ("id,a,a\n1,0,1\n", "the header repeats a"),
        ("id,a\n", "has no rows"),
        ("", "the file is empty"),
        ("id,a\n1,0,3\n", "row 2 has 3"),
        ("id,a\n1\n", "row 2 has 1"),
        ('id,a\n1,"0\n', "not readable as a CSV table"),
    ],
)
def test_each_broken_table_has_its_message(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(CompetitionError, match="remedy") as caught:
        read_table(path, id_column="id", key="competition.train")
    assert part in str(caught.value)
    assert str(path) in str(caught.value)
    with pytest.raises(CompetitionError, match="no such file"):
        read_table(tmp_path / "none.csv", id_column="id", key="competition.train")


def test_sample_and_test_must_hold_the_same_ids(tmp_path: Path) -> None:
    sample, asked = tmp_path / "sample.csv", ("1", "2", "3")
    require_same_ids(sample, asked, ["3", "1", "2"], other="test.csv")
    with pytest.raises(CompetitionError, match=r"1 ids only in the sample \(3\); 1 ids only in test.csv \(4\)"):
        require_same_ids(sample, asked, ["1", "2", "4"], other="test.csv")


def test_test_images_need_a_test_csv_or_a_template(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match=r"images\.template"):
        read_test(_competition(tmp_path), ["1"], tmp_path / "sample.csv")


def test_a_label_may_not_take_the_name_of_an_own_column(tmp_path: Path) -> None:
    _write(tmp_path, train="key,img_path,fold\n1,x.jpg,0\n", sample="key,fold\n9,0\n")
    with pytest.raises(CompetitionError, match="may not be called 'fold'"):
        read_train(_competition(tmp_path, id="key"), ignore)
