"""A run whose time budget ends is scored and submitted with its finished folds, and can be completed later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.events import Event, FoldFinished
from pipeline.run.cv import run_cv
from pipeline.run.folder import RunFolder
from tests.conftest import LABELS
from tests.e2e.commands import cv, ignore, listing, make_plan, printed, submission


def over_after(folds: int, clock: list[float]) -> Callable[[Event], None]:
    """A listener that moves the clock past the deadline after `folds` finished folds."""

    def listen(event: Event) -> None:
        if isinstance(event, FoldFinished) and event.fold == folds - 1:
            clock[0] = 1e9

    return listen


@pytest.mark.parametrize("finished", [1, 2])
def test_a_budget_that_ends_gives_a_submission_of_the_finished_folds(
    finished: int, tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(tiny_config, "folds.count=3", "folds.seed=4")
    whole, run = RunFolder(Path("runs/whole")), RunFolder(Path("runs/tiny"))
    complete = run_cv(plan, whole, folds=None, fresh=False, listen=ignore)
    assert complete is not None
    clock = [0.0]
    with monkeypatch.context() as patched:
        patched.setattr("time.monotonic", lambda: clock[0])
        scores = run_cv(replace(plan, deadline=5.0), run, folds=None, fresh=False, listen=over_after(finished, clock))
    assert scores is not None
    assert scores.folds == tuple(range(finished))
    mark = "fold 0 of 0-2" if finished == 1 else "folds 0, 1 of 0-2"
    assert mark in scores.notes
    oof, all_folds = (pd.read_parquet(one.oof).set_index("id") for one in (run, whole))
    pd.testing.assert_frame_equal(oof, all_folds[all_folds["fold"] < finished])

    assert submission(monkeypatch, run.path) == 0
    shown = printed(capsys)
    assert f"{mark}; thresholds, scores and models are of these alone" in shown
    assert ("2 predictions averaged per image" in shown) == (finished == 2)

    assert run_cv(plan, run, folds=None, fresh=False, listen=ignore) == complete
    for file in ("oof.parquet", "thresholds.json", "scores.json"):
        assert (run.path / file).read_bytes() == (whole.path / file).read_bytes()
    assert submission(monkeypatch, run.path) == 0
    assert "of 0-2" not in capsys.readouterr().out


def test_finished_folds_are_scored_on_request_and_submitted_with_these_scores(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(Path("runs/tiny"))
    assert cv(monkeypatch, tiny_config, "--folds", "finished") == 0
    assert "scores follow when more is finished" in capsys.readouterr().out
    assert cv(monkeypatch, tiny_config, "--folds", "1") == 0
    shown = capsys.readouterr().out
    assert "fold 1 of 0-1" in shown
    assert "goes on with the other folds" in shown
    kept = {path: path.read_bytes() for path in (run.oof, run.thresholds, run.scores)}
    assert cv(monkeypatch, tiny_config) == 0
    for path, content in kept.items():
        path.write_bytes(content)  # as after a kill before the scoring
    capsys.readouterr()
    assert submission(monkeypatch, run.path) == 0
    shown = printed(capsys)
    assert "fold 1 of 0-1" in shown
    assert "averaged per image" not in shown
    assert "finished since it was scored: 0; run_cv.py with --folds finished takes them in" in shown

    run.thresholds.unlink()
    assert cv(monkeypatch, tiny_config, "--folds", "finished") == 0
    assert json.loads(run.thresholds.read_text())["folds"] == [0, 1]
    assert "of 0-1" not in capsys.readouterr().out


@pytest.mark.parametrize(("chosen", "mark"), [("2,0", "folds 0, 2 of 0-2"), ("1", "fold 1 of 0-2")])
def test_chosen_folds_give_what_a_run_that_has_only_these_gives(
    chosen: str, mark: str, tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("folds.count=3", "folds.seed=4")
    assert cv(monkeypatch, tiny_config, *words, "--folds", chosen) == 0
    partial = RunFolder(Path("runs/tiny"))
    assert submission(monkeypatch, partial.path) == 0
    files = (partial.submission, partial.decided, partial.test, partial.submitted)
    before = [path.read_bytes() for path in files]
    assert cv(monkeypatch, tiny_config, *words) == 0
    assert submission(monkeypatch, partial.path) == 0
    assert partial.test.read_bytes() != before[2]
    capsys.readouterr()
    assert submission(monkeypatch, partial.path, "--folds", chosen) == 0
    assert f"{mark}; thresholds, scores and models are of these alone" in printed(capsys)
    assert [path.read_bytes() for path in files[:3]] == before[:3]
    record, alone = json.loads(partial.submitted.read_text()), json.loads(before[3])
    assert record["folds"] == [sorted(map(int, chosen.split(",")))]
    assert {**record, "notes": []} == {**alone, "notes": []}


@pytest.mark.parametrize(
    ("folds", "part"),
    [("0,1", "fold 1 is not finished"), ("1,x", "'1,x' is not a list of fold numbers"), ("finished", "fold 0 of 0-1")],
)
def test_folds_that_cannot_be_submitted_are_refused(
    folds: str, part: str, tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, "--folds", "0") == 0
    assert submission(monkeypatch, "runs/tiny", "--folds", folds) == (0 if folds == "finished" else 2)
    shown = capsys.readouterr()
    assert part in " ".join((shown.out + shown.err).split())
    assert Path("runs/tiny/submission.csv").exists() == (folds == "finished")


def test_finished_folds_are_never_trained_nor_deleted(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, "--folds", "0") == 0
    before = listing(Path("runs"))
    for option in ("--fresh", "--debug"):
        assert cv(monkeypatch, tiny_config, "--folds", "finished", option) == 2
        assert "--folds finished trains nothing, --fresh and --debug start over" in capsys.readouterr().err
        assert listing(Path("runs")) == before
    assert cv(monkeypatch, tiny_config, "--folds", "finished", "train.seeds=2") == 0
    assert not Path("runs/tiny/fold0/seed1").exists()


def test_the_message_for_a_run_without_models_of_added_seeds(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config) == 0
    whole = Path("runs/tiny/scores.json").read_bytes()
    capsys.readouterr()
    assert cv(monkeypatch, tiny_config, "--folds", "finished", "train.seeds=2") == 0
    shown = printed(capsys)
    remedy = "folds 0, 1 were finished with train.seeds=1: with that value the same run_cv.py command scores"
    assert f"no fold has a model for each of train.seeds=2: {remedy}" in shown
    assert "scores follow" not in shown
    assert submission(monkeypatch, "runs/tiny") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "no fold has a model for each of train.seeds=2" in error
    assert remedy in error
    assert cv(monkeypatch, tiny_config, "--folds", "finished") == 0
    assert Path("runs/tiny/scores.json").read_bytes() == whole
    assert submission(monkeypatch, "runs/tiny") == 0


def test_a_resume_folder_that_another_command_deletes_is_no_error(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = shutil.rmtree

    def after_another(path: Path, ignore_errors: bool = False) -> None:
        delete(path, ignore_errors=True)
        delete(path, ignore_errors=ignore_errors)

    monkeypatch.setattr("shutil.rmtree", after_another)
    assert cv(monkeypatch, tiny_config, "--folds", "0") == 0
    assert not Path("runs/tiny/fold0/resume").exists()


def test_runs_with_different_folds_fit_thresholds_on_their_common_rows(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config) == 0
    assert cv(monkeypatch, tiny_config, "train.seed=1", "--folds", "0", "--run", "part") == 0
    capsys.readouterr()
    assert submission(monkeypatch, "runs/tiny", "runs/part", "--out", "both.csv") == 0
    shown = printed(capsys)
    assert "3 predictions averaged per image" in shown
    assert "thresholds rest on the 12 rows that all of them have validated" in shown
    assert np.isfinite(pd.read_parquet("both.parquet")[list(LABELS)].to_numpy()).all()


def test_a_single_finished_fold_that_is_too_small_is_not_scored(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv("data/train.csv", dtype={"id": str})
    table.assign(site=["a"] * 12 + ["b"] * 12).to_csv("data/train.csv", index=False)
    groups = "competition.groups={column: site}"
    assert cv(monkeypatch, tiny_config, groups, "--folds", "0") == 0
    assert "scores follow when" in capsys.readouterr().out
    assert cv(monkeypatch, tiny_config, groups) == 0
