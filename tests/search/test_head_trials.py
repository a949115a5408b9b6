"""Head trials train on the feature maps of the trained backbone, row by row."""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.competition.folds.rows import rows_of
from pipeline.images.decoding.decode import load_image
from pipeline.images.geometry import image_form
from pipeline.model.build import backbone_of, load_model
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from pipeline.search.head_trials import COPIES, HeadTrials, open_maps
from pipeline.search.study import TimeUsed
from pipeline.search.trial_score import build_trial_score


def test_maps_are_those_of_their_rows_and_are_made_once(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
    plan, run = make_plan("train.epochs=1", "images.cache=none"), RunFolder(tmp_path / "runs/tiny")
    maps = open_maps(plan, run, 1, listen=lambda _: None)
    rows = rows_of(plan.folds, 1)
    assert maps.train.shape[:2] == (COPIES, len(rows.train))
    trained = load_model(run.search.proxy(1).weights, device=torch.device("cpu"))
    pixels = [load_image(plan.table.paths[row], image_form(plan.config.images)) for row in rows.validation]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = backbone_of(trained.model)(trained.normalizer(images)).numpy()
    np.testing.assert_allclose(maps.validation, expected, rtol=2e-3, atol=2e-3)
    assert not np.array_equal(maps.train[0], maps.train[1])  # copies are augmented differently

    made = run.search.proxy(1).weights.stat().st_mtime_ns
    again = open_maps(plan, run, 1, listen=lambda _: None)
    assert run.search.proxy(1).weights.stat().st_mtime_ns == made
    np.testing.assert_array_equal(again.train, maps.train)

    with_worker = dataclasses.replace(plan, config=make_plan("train.epochs=1", "train.workers=1").config)
    shutil.rmtree(run.search.proxy(1).path)
    np.testing.assert_array_equal(open_maps(with_worker, run, 1, listen=lambda _: None).train, maps.train)

    scores: list[float] = []
    trials = HeadTrials(plan, (maps,), build_trial_score(plan))
    value = trials.train(0, plan.config, listen=lambda _: None, on_score=lambda _f, _e, score: scores.append(score))
    assert value == scores[-1]
    assert value == trials.train(1, plan.config, listen=lambda _: None, on_score=lambda *_: None)  # the same seed


def test_a_time_budget_that_ends_before_the_maps_keeps_the_trained_backbone(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    plan, run = make_plan("train.epochs=1"), RunFolder(tmp_path / "runs/tiny")
    folder = run.search.proxy(1)
    expected = open_maps(plan, run, 1, listen=lambda _: None)
    for path in (folder.done, folder.path / "train.npy", folder.path / "validation.npy"):
        path.unlink()
    made = folder.weights.stat().st_mtime_ns
    with pytest.raises(TimeUsed):
        open_maps(dataclasses.replace(plan, deadline=time.monotonic() - 1), run, 1, listen=lambda _: None)
    assert {path.name for path in folder.path.iterdir()} == {"weights.safetensors", "epochs.jsonl", "lock"}
    again = open_maps(dataclasses.replace(plan, deadline=math.inf), run, 1, listen=lambda _: None)
    np.testing.assert_array_equal(again.train, expected.train)
    assert folder.weights.stat().st_mtime_ns == made
