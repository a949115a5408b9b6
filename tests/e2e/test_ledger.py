"""The ledger: submissions and their public scores on disk, and the commands that read them."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.run.ledger import add, similarities
from tests.e2e.commands import printed, verb
from tests.e2e.test_blend import member

__all__ = ["member"]
LEDGER = Path("ledger/ledger.jsonl")


def test_submissions_are_noted_shown_and_picked(member: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb("ledger", "add", member, "--public", "0.71", "--note", "first") == 0
    first = LEDGER.read_text()
    table = pd.read_csv(member / "submission.csv", dtype={"id": str})
    table.iloc[::-1].to_csv("other.csv", index=False)
    assert verb("ledger", "add", "other.csv", "--public", "0.6", "--public-share", "0.4") == 0
    assert LEDGER.read_text().startswith(first)
    entry = json.loads(first)
    digest = hashlib.sha256((member / "submission.csv").read_bytes()).hexdigest()
    assert (entry["sha256"], entry["note"], entry["runs"], entry["public"]) == (digest, "first", ["runs/tiny"], 0.71)
    assert entry["cross_fitted"] == json.loads((member / "scores.json").read_text())["cross_fitted"]["pooled"]
    assert Path(f"ledger/{digest[:12]}.csv").read_bytes() == (member / "submission.csv").read_bytes()
    assert verb("ledger", "add", member, "--public", "5.0") == 0  # corrects the first line
    shown = printed(capsys)
    assert "0.7100 fits" in shown
    assert "5.0000 too high" in shown
    assert verb("ledger", "pick", "2") == 0
    picks = printed(capsys)
    assert "1. " in picks
    assert "correlation 1.00 with those above" in picks  # the same rows in another order


def test_two_commands_at_once_lose_no_line(member: Path) -> None:
    Path("tables").mkdir()
    files = [Path(f"tables/{number}.csv") for number in range(8)]
    for number, file in enumerate(files):
        pd.DataFrame({"id": ["a", "b"], "cat": [number, 1]}).to_csv(file, index=False)
    add(member, public=None, public_share=None, note=None)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(add, public=0.5, public_share=None, note=None), files))
    assert len(LEDGER.read_text().splitlines()) == 9


def test_text_submissions_are_compared_by_their_words(workplace: Path) -> None:
    cells = {"one": ["a b", "b", ""], "two": ["b a", "b", ""], "three": ["c", "a", "b c"]}
    for name, answers in cells.items():
        pd.DataFrame({"id": ["x", "y", "z"], "tags": answers}).to_csv(f"{name}.csv", index=False)
    found = similarities([Path(f"{name}.csv") for name in cells])
    assert found[0, 1] == pytest.approx(1.0)
    assert found[0, 2] < 0.3
    np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["add", "runs/none"], "python make_submission.py runs/none"),
        (["add"], "ledger add runs/demo"),
        (["add", "runs/tiny", "--public-share", "30"], "--public-share 0.3"),
        (["add", "runs/tiny", "--public-share", "0"], "--public-share 0.3"),
        (["add", "runs/tiny/submission.csv", "--public", "0.7"], "add a run first"),
        (["add", "runs/tiny", "--public", "nan"], "finite score"),
        (["add", "data/test/t.000.png"], "not readable as CSV"),
        (["show"], "python -m pipeline ledger add runs/demo"),
        (["pick", "two"], "number of picks"),
        (["remove"], "add, show or pick"),
    ],
)
def test_a_mistake_is_explained_and_nothing_is_written(
    words: list[str], message: str, member: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verb("ledger", *words) == 2
    assert message in capsys.readouterr().err
    assert not LEDGER.exists()


def test_a_later_line_keeps_what_it_does_not_name(member: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb("ledger", "add", member, "--note", "first [red]") == 0
    assert verb("ledger", "add", member / "submission.csv", "--public", "0.71", "--public-share", "0.4") == 0
    assert verb("ledger", "add", member) == 0
    entry = json.loads(LEDGER.read_text().splitlines()[-1])
    assert (entry["runs"], entry["public"], entry["public_share"]) == (["runs/tiny"], 0.71, 0.4)
    assert entry["cross_fitted"] is not None
    shown = printed(capsys)
    assert "first [red]" in shown
    assert "\\[red]" not in shown


def test_another_metric_and_a_damaged_line_are_refused(member: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb("ledger", "add", member) == 0
    kept = LEDGER.read_text()
    LEDGER.write_text(kept.replace('"f1_macro"', '"map"'))
    assert verb("ledger", "add", member) == 2
    assert "is about another metric" in capsys.readouterr().err
    LEDGER.write_text(kept + '{"file": 3}\n')
    assert verb("ledger", "show") == 2
    assert "ledger.jsonl is damaged" in capsys.readouterr().err
