"""Broken test images: refused by default, predicted with a fallback if the config allows it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.run.folder import RunFolder
from pipeline.run.submission import test_predictions
from pipeline.training.build_prediction import load_ensemble
from tests.conftest import LABELS
from tests.e2e.commands import cv, printed, submission


@pytest.fixture
def tolerant(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A copy of the finished run and its data with `predict.broken: fallback`; one test image is cut short."""
    shutil.copytree(finished.parents[1], tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    assert cv(monkeypatch, "tiny.yaml", "predict.broken=fallback") == 0
    image = Path("data/test/t.002.png")
    image.write_bytes(image.read_bytes()[:60])
    return RunFolder(Path("runs/tiny"))


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_break_before_and_during_the_prediction_get_the_mean_out_of_fold_probability(
    tolerant: RunFolder, workers: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, "tiny.yaml", "predict.broken=fallback", f"train.workers={workers}") == 0

    def load_and_break(*arguments: object, **keys: object) -> object:
        Path("data/test/t.004.png").unlink()  # after the check of all files
        return load_ensemble(*arguments, **keys)  # type: ignore[arg-type]

    monkeypatch.setattr(test_predictions, "load_ensemble", load_and_break)
    assert submission(monkeypatch, tolerant.path) == 0
    shown = printed(capsys)
    assert "2 of 6 test images cannot be read" in shown
    assert "t.002, t.004" in shown
    listed = pd.read_csv(tolerant.path / "submission.broken.csv", dtype=str)
    assert listed["id"].tolist() == ["t.002", "t.004"]
    assert "truncated" in listed["problem"][0]
    assert "does not exist" in listed["problem"][1]
    written = pd.read_csv(tolerant.submission, dtype=str)
    assert written["id"].tolist() == pd.read_csv("data/sample_submission.csv", dtype=str)["id"].tolist()
    mean = pd.read_parquet(tolerant.oof)[list(LABELS)].mean()
    probabilities = pd.read_parquet(tolerant.test).set_index("id")[list(LABELS)]
    np.testing.assert_allclose(probabilities.loc[["t.002", "t.004"]], np.tile(mean, (2, 1)))
    assert not np.isclose(probabilities.drop(["t.002", "t.004"]), mean).all(axis=1).any()


def test_the_list_of_broken_images_is_deleted_when_they_are_repaired(
    tolerant: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert submission(monkeypatch, tolerant.path) == 0
    assert (tolerant.path / "submission.broken.csv").exists()
    shutil.copy("data/test/t.001.png", "data/test/t.002.png")
    assert submission(monkeypatch, tolerant.path) == 0
    assert not (tolerant.path / "submission.broken.csv").exists()


def test_a_test_set_without_a_readable_image_is_refused(
    tolerant: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("data/test")
    assert submission(monkeypatch, tolerant.path) == 2
    assert "not one of 6 test images can be read" in capsys.readouterr().err
    assert not tolerant.submission.exists()


def test_a_broken_test_image_is_refused_by_default(
    tolerant: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, "tiny.yaml") == 0
    assert submission(monkeypatch, tolerant.path) == 2
    assert "1 of 6 images cannot be read" in capsys.readouterr().err
