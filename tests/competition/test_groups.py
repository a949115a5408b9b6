"""Groups: every source, joined where several are given, refused by name where a row has none."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.competition import groups as groups_module
from pipeline.competition.groups import connect, describe_groups, join_groups
from pipeline.competition.table import read_train
from pipeline.config import CompetitionConfig, check_config
from pipeline.errors import CompetitionError, ConfigError
from pipeline.events import ignore

ROWS = ("p1_a,x/1.png,1,s", "p1_b,x/2.png,0,s", "p2_a,y/3.png,1,t", "p3_a,y/4.png,0,s", "p3_b,y/5.png,1,s")


def _groups(root: Path, groups: Any) -> tuple[str, ...] | None:
    (root / "train.csv").write_text("\n".join(["id,img_path,red,site", *ROWS]))
    labels = {"format": "wide", "columns": ["red"]}
    competition = CompetitionConfig.model_validate({"root": str(root), "labels": labels, "groups": groups})
    return read_train(competition, ignore).groups


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"column": "site"}, "s s t s s"),
        ({"regex": "^(.+?)_"}, "p1 p1 p2 p3 p3"),
        ({"regex": "^(.+?)/", "of": "path"}, "x x y y y"),
        ([{"regex": "^(.+?)_"}], "p1 p1 p2 p3 p3"),
        # x and y hold p1, and p2 with p3; nothing joins the two
        ([{"regex": "^(.+?)_"}, {"regex": "^(.)/", "of": "path"}], "p1_a p1_a p2_a p2_a p2_a"),
        ([{"column": "site"}, {"regex": "^(.+?)_"}, {"images": "near"}], "p1_a p1_a p2_a p1_a p1_a"),
    ],
)
def test_each_source_gives_its_groups(tmp_path: Path, source: Any, expected: str) -> None:
    assert _groups(tmp_path, source) == tuple(expected.split())


def test_chunks_are_consecutive_rows_also_within_a_column(tmp_path: Path) -> None:
    plain = _groups(tmp_path, {"chunks": 2})
    within = _groups(tmp_path, {"chunks": 3, "within": "site"})
    assert plain == ("from row 0", "from row 0", "from row 2", "from row 2", "from row 4")
    assert within == ("s from row 0", "s from row 0", "t from row 0", "s from row 0", "s from row 3")


def test_another_file_is_joined_by_id(tmp_path: Path) -> None:
    (tmp_path / "blocks.csv").write_text("block,id\nb,p3_b\na,p1_a\na,p1_b\na,p2_a\nb,p3_a\nz,foreign\n")
    assert _groups(tmp_path, {"file": "blocks.csv", "column": "block"}) == ("a", "a", "a", "b", "b")
    (tmp_path / "blocks.csv").write_text("id,block\np1_a,a\np1_b,\n")
    with pytest.raises(CompetitionError, match=r"(?s)4 training rows.*p1_b, p2_a"):
        _groups(tmp_path, {"file": "blocks.csv", "column": "block"})


def test_rows_that_a_pattern_misses_are_named(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match=r"(?s)of 3 rows.*p2_a, p3_a, p3_b"):
        _groups(tmp_path, {"regex": "^(p1)_"})


@pytest.mark.parametrize("groups", [{"regex": "("}, {"regex": "no capture"}, {"chunks": 0}, {"images": "exact"}, []])
def test_a_source_that_makes_no_sense_is_refused(groups: Any) -> None:
    with pytest.raises(ValidationError):
        CompetitionConfig.model_validate({"groups": groups})


def test_a_misspelt_source_is_named_as_the_config_writes_it() -> None:
    with pytest.raises(ConfigError, match=r"competition\.groups\.0\.colum: unknown key; did you mean 'column'"):
        check_config({"competition": {"groups": {"colum": "patient"}}}, source="c.yaml")


def test_connected_rows_share_a_group_whatever_their_order() -> None:
    ids = ["d", "b", "a", "c"]
    assert connect(ids, [["x", "x", "y", "z"], ["1", "2", "2", "3"]]) == ("a", "a", "a", "c")
    assert connect(ids[::-1], [["z", "y", "x", "x"], ["3", "2", "2", "1"]]) == ("c", "a", "a", "a")
    assert join_groups(ids, [["x", "x", "y", "z"]]) == ("x", "x", "y", "z")


def test_groups_are_described_with_the_largest_and_their_source() -> None:
    sources = CompetitionConfig.model_validate({"groups": {"chunks": 2}}).groups
    assert sources is not None
    assert describe_groups(["b", "a", "b"], sources) == (
        "2 groups of 3 rows, from {chunks: 2}; the largest, 'b', has 2 rows"
    )


def test_an_exponential_expression_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups_module, "_SECONDS", 0.2)
    handler = signal.getsignal(signal.SIGALRM)
    rows = [f"{'a' * 60}{row}!,x/1.png,1,s" for row in range(3)]
    monkeypatch.setattr("tests.competition.test_groups.ROWS", rows)
    with pytest.raises(CompetitionError, match=r"takes more than 0\.2 seconds"):
        _groups(tmp_path, {"regex": r"^((a+)+)\d$"})
    assert signal.getsignal(signal.SIGALRM) == handler
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
