"""`predict.time_budget`: one model always writes, further ones replace its file, a kill leaves a valid one."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from pipeline.run.folder import RunFolder
from pipeline.run.submission.timed_predictions import plan_passes
from pipeline.run.trained_run import open_run
from tests.conftest import PROJECT
from tests.e2e.commands import cv, printed, submission, verb

TTA = "predict.tta=[identity, hflip]"


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of two folds and two views in the working directory."""
    shutil.copytree(finished.parents[1], tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    assert cv(monkeypatch, "tiny.yaml", TTA) == 0
    return Path("runs/tiny")


def test_with_enough_time_the_submission_is_the_one_without_a_budget(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submission(monkeypatch, run) == 0
    expected = (run / "submission.csv").read_bytes(), (run / "test.parquet").read_bytes()
    assert cv(monkeypatch, "tiny.yaml", TTA, "predict.time_budget=1h") == 0
    capsys.readouterr()
    assert submission(monkeypatch, run) == 0
    assert ((run / "submission.csv").read_bytes(), (run / "test.parquet").read_bytes()) == expected
    shown = printed(capsys)
    assert "4 of 4 predictions are averaged" in shown
    assert "4 predictions averaged per image" in shown


def test_the_best_fold_comes_first_and_a_used_budget_leaves_its_submission(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, "tiny.yaml", TTA, "predict.time_budget=0s") == 0
    opened = open_run(RunFolder.at(run))
    scores = pd.read_json(run / "scores.json", typ="series")["cross_fitted"]["folds"]
    best = int(scores[1] > scores[0])
    passes = plan_passes([opened], [["identity", "hflip"]])
    assert [(each.view, each.model) for each in passes] == [(0, best), (0, 1 - best), (1, best), (1, 1 - best)]
    assert submission(monkeypatch, run) == 0
    assert f"1 of 4 predictions are averaged: runs/tiny/fold{best} identity" in printed(capsys)
    assert verb("validate", "tiny.yaml", run / "submission.csv") == 0


def test_a_pass_is_given_up_at_the_end_of_the_budget(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, "tiny.yaml", TTA, "predict.time_budget=100s") == 0
    clock = iter([0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 200.0])  # start; a pass and its writing; a pass that begins at 2

    monkeypatch.setattr("pipeline.run.submission.timed_predictions.time.monotonic", lambda: next(clock, 200.0))
    assert submission(monkeypatch, run) == 0
    assert "1 of 4 predictions are averaged" in printed(capsys)


@pytest.mark.slow
def test_a_kill_at_any_moment_after_the_first_pass_leaves_a_valid_submission(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cv(monkeypatch, "tiny.yaml", TTA, "predict.time_budget=10m", "predict.batch_size=1") == 0
    command = [sys.executable, str(PROJECT / "make_submission.py"), str(run)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    for number in range(10):
        (run / "submission.csv").unlink(missing_ok=True)
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        end = time.monotonic() + 100
        while not (run / "submission.csv").exists() and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(random.Random(number).uniform(0, 0.4))
        process.kill()
        assert process.wait(timeout=10) in (-signal.SIGKILL, 0)
        assert verb("validate", "tiny.yaml", run / "submission.csv") == 0
