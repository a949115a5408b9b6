"""A run with a custom metric: its function runs from the user's config, never because a run folder names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.e2e.commands import cv, printed, submission

METRIC = """
from pathlib import Path

Path("ran").touch()

def score(targets, decisions):
    return float((targets == decisions).mean())
"""
OWN = "{root: data, test: test.csv, metric: {function: my_metric.py:score, takes: decisions}}"


def _config(workplace: Path, metric: str = METRIC) -> Path:
    (workplace / "settings").mkdir()
    (workplace / "settings/my_metric.py").write_text(metric)
    path = workplace / "settings/own.yaml"
    path.write_text(TINY.replace("{root: data, test: test.csv}", OWN).replace("epochs: 2", "epochs: 1"))
    return path


def test_a_run_is_scored_with_it_and_submitted_without_it(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _config(workplace)
    assert cv(monkeypatch, config) == 0
    scores = json.loads((workplace / "runs/own/scores.json").read_text())
    assert scores["metric"] == "my_metric.py:score"
    assert 0 < scores["cross_fitted"]["pooled"] <= 1

    (workplace / "ran").unlink()
    monkeypatch.setattr("pipeline.metrics.custom_metric.CustomFunction.load", None)  # loading it would fail now
    capsys.readouterr()
    assert submission(monkeypatch, "runs/own") == 0
    assert "cross-validated my_metric.py:score" in printed(capsys)

    assert submission(monkeypatch, "runs/own", "runs/own", "--out", "both.csv") == 2
    assert "not run from a run folder" in capsys.readouterr().err
    assert not (workplace / "both.csv").exists()
    assert not (workplace / "ran").exists()


def test_its_errors_are_found_before_the_training(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, _config(workplace, METRIC.replace("targets ==", "target =="))) == 2
    message = capsys.readouterr().err
    assert "my_metric.py:score raised NameError: name 'target' is not defined (line 7)" in message
    assert "Traceback" not in message
    assert not (workplace / "runs").exists()
