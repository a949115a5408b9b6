"""Training tables in other shapes: repeated rows, no header, several files, a joined file, texts over several lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import CompetitionError
from tests.competition.labels.competition import read, read_noted

TAGS = {"format": "delimited", "column": "tags"}


@pytest.mark.parametrize("text", ["id,tags\na,x\nb,y\na,x\n", "id,tags\na,x\na,x\n a ,x\nb,y\n"])
def test_rows_that_repeat_in_all_cells_count_once(tmp_path: Path, text: str) -> None:
    table, notes = read_noted(tmp_path, TAGS, {"train.csv": text})
    assert table.ids == ("a", "b")
    assert "repeat another row in all cells and count once" in notes
    with pytest.raises(CompetitionError, match="1 ids occur more than once"):
        read(tmp_path, TAGS, {"train.csv": text + "b,x\n"})


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_without_a_header(tmp_path: Path, mark: str) -> None:
    text = f"0001{mark}cat dog\n0002{mark}dog\n"
    table = read(tmp_path, TAGS, {"train.csv": text}, header=["id", "tags"])
    assert (table.ids, table.targets.tolist()) == (("0001", "0002"), [[1, 1], [0, 1]])
    with pytest.raises(CompetitionError, match="longer or shorter"):
        read(tmp_path, TAGS, {}, header=["id", "tags", "more"])


def test_several_tables_are_read_as_one(tmp_path: Path) -> None:
    files = {"labels/a.csv": "id,tags\n1,x\n", "labels/b.csv": "tags,id\ny,2\n", "labels/._a.csv": "?"}
    table, notes = read_noted(tmp_path, TAGS, files, train="labels/*.csv")
    assert (table.ids, table.labels, table.targets.tolist()) == (("1", "2"), ("x", "y"), [[1, 0], [0, 1]])
    assert "2 tables: a.csv, b.csv" in notes
    with pytest.raises(CompetitionError, match=r"c\.csv: other columns than a\.csv"):
        read(tmp_path, TAGS, {"labels/c.csv": "id,other\n3,x\n"}, train="labels/*.csv")
    with pytest.raises(CompetitionError, match="no such file"):
        read(tmp_path, TAGS, {}, train="none/*.csv")


@pytest.mark.parametrize("on", ["id", "case"])
def test_columns_of_a_second_table_are_joined_by_key(tmp_path: Path, on: str) -> None:
    files = {
        "train.csv": "id,case,tags\n1,p,x\n2,q,y\n",
        "features.csv": f"{on},file,site,tags\n"
        + ("2,b.png,S,z\n1,a.png,T,z\n" if on == "id" else "q,b.png,S,z\np,a.png,T,z\n"),
    }
    keys = {"join": {"file": "features.csv", "on": on}, "images": {"column": "file"}, "groups": {"column": "site"}}
    table = read(tmp_path, TAGS, files, **keys)
    assert [path.name for (path,) in table.paths] == ["a.png", "b.png"]
    assert (table.groups, table.labels) == (("T", "S"), ("x", "y"))
    with pytest.raises(CompetitionError, match=f"no row for 1 values of '{on}'"):
        read(tmp_path, TAGS, {"train.csv": "id,case,tags\n1,p,x\n2,q,y\nr,r,x\n"}, **keys)


@pytest.mark.parametrize("line", ['"a rug with a dog\nand two tables."', '"one\ntwo "quoted" words\nthree"'])
def test_texts_over_several_lines_with_bare_quotes(tmp_path: Path, line: str) -> None:
    text = f'id,tags,caption\n1,x,"a cat."\n2,y,{line}\n3,x,"a sign "for rent"."\n'
    with pytest.raises(CompetitionError, match="quoting: none"):
        read(tmp_path, TAGS, {"train.csv": text})
    table, notes = read_noted(tmp_path, TAGS, {}, quoting="none")
    assert table.ids == ("1", "2", "3")
    assert "cells of 1 rows span several lines (row 3)" in notes
    with pytest.raises(CompetitionError, match="remedy") as caught:
        read(tmp_path, TAGS, {"train.csv": "id,tags,caption\n1,x\n2,y,c\n"}, quoting="none")
    assert "quoting" not in caught.value.remedy
