"""The feature maps that heads train on are those of the trained backbone, row by row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipeline.images.decode import load_image
from pipeline.inference.out_of_fold import image_form, rows_of
from pipeline.model.build import backbone_of
from pipeline.model.weights import load_model
from pipeline.plan import Plan
from pipeline.runs import RunFolder
from pipeline.search.judge import build_judge
from pipeline.search.proxy import COPIES, HeadTrials, open_maps


def test_maps_belong_to_their_rows_and_are_made_once(make_plan: Callable[..., Plan], tmp_path: Path) -> None:
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

    scores: list[float] = []
    trials = HeadTrials(plan, (maps,), build_judge(plan))
    value = trials.train(0, plan.config, listen=lambda _: None, on_score=lambda _f, _e, score: scores.append(score))
    assert value == scores[-1]
    assert value == trials.train(1, plan.config, listen=lambda _: None, on_score=lambda *_: None)  # the same seed
