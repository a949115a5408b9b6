"""`train.frozen_backbone` through the commands: kills, several processes, seeds, submission."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from pipeline.model.weights import load_tensors
from pipeline.run.folder import RunFolder
from tests.conftest import LABELS
from tests.e2e.commands import cv, make_plan, printed, submission
from tests.e2e.test_killed import SAVE_EVERY_STEP, at_a_step, in_half_a_file, killed, names, run
from tests.e2e.test_several_processes import IDS, assert_ended, is_complete
from tests.together import cv_together


@pytest.fixture
def settings(finished: Path) -> tuple[str, ...]:
    """Keys that freeze the backbone of a finished run."""
    weights = finished / "fold0/weights.safetensors"
    return ("train.frozen_backbone=true", f"model.backbone_weights={weights}", "features.copies=2")


@pytest.mark.parametrize("begin", [at_a_step, in_half_a_file(".npy", 2)], ids=["step", "half the maps"])
def test_a_killed_run_ends_with_the_same_bytes(
    begin: Callable[[], None], tiny_config: Path, settings: tuple[str, ...]
) -> None:
    plan = make_plan(tiny_config, SAVE_EVERY_STEP, *settings)
    whole, stopped = RunFolder(Path("runs/whole")), RunFolder(Path("runs/killed"))
    run(plan, whole)
    shutil.rmtree(whole.cache)
    assert killed(plan, stopped, begin) == -signal.SIGKILL
    assert not stopped.scores.exists()
    run(plan, stopped)
    assert stopped.oof.read_bytes() == whole.oof.read_bytes()
    assert stopped.fold(1).weights.read_bytes() == whole.fold(1).weights.read_bytes()
    assert names(stopped) == names(whole)
    assert not [*stopped.cache.glob(".writing-*")]


@pytest.mark.usefixtures("quick_processes")
def test_folds_side_by_side_share_the_maps_and_the_whole_network_predicts_the_test_images(
    tiny_config: Path, settings: tuple[str, ...], finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*settings, "train.parallel_folds=2", "train.seeds=2", "images.cache=none")
    assert cv(monkeypatch, tiny_config, *words) == 0
    assert len([*Path("runs/.cache").glob("*.npy")]) == 3
    assert submission(monkeypatch, "runs/tiny") == 0
    assert len(pd.read_csv("runs/tiny/submission.csv")) == 6
    ours, theirs = (load_tensors(path / "fold0/weights.safetensors")[0] for path in (Path("runs/tiny"), finished))
    assert ours.keys() > theirs.keys()  # the recipe frozen_head adds pooling
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if name.startswith("backbone."))
    assert not torch.equal(ours["classifier.weight"], theirs["classifier.weight"])

    shutil.rmtree("runs/.cache")
    assert cv(monkeypatch, tiny_config, *words, "predict.tta=[hflip]") == 0
    assert not [*Path("runs").glob(".cache/*.npy")]  # a trained model only predicts
    assert not any(pd.read_parquet("runs/tiny/oof.parquet")[list(LABELS)].isna().any())


@pytest.mark.slow
def test_two_processes_train_heads_as_one_does(
    tiny_config: Path, settings: tuple[str, ...], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*settings, "model.dropout=0", "images.cache=none")
    assert_ended(cv_together(tiny_config, *words, "--run", "two", folder=workplace), 0)
    assert cv(monkeypatch, tiny_config, *words) == 0
    one, two = RunFolder(Path("runs/tiny")), RunFolder(Path("runs/two"))
    assert is_complete(two, IDS)
    ours, theirs = (pd.read_parquet(each.oof).set_index("id").sort_index() for each in (one, two))
    pd.testing.assert_frame_equal(ours, theirs, rtol=0, atol=1e-4)


def test_a_used_time_budget_leaves_a_run_that_goes_on(
    tiny_config: Path, settings: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, *settings, "train.time_budget=0s") == 0
    assert "train.time_budget=0s is used" in printed(capsys)
    assert cv(monkeypatch, tiny_config, *settings) == 0
    assert RunFolder(Path("runs/tiny")).scores.exists()
