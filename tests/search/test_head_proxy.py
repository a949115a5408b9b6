"""Head trials train on the frozen backbone of one training per fold, or on a pretrained one."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.model.weights import load_tensors
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from pipeline.search.head_proxy import head_config, make_maps
from pipeline.search.objective import Trials
from pipeline.search.study import TimeUsed
from pipeline.search.trial_score import build_trial_score
from pipeline.training.fold_folder import FoldFolder
from pipeline.training.frozen_maps import MapCache
from tests.e2e.commands import ignore

PROXY = ("search.proxy=head", "train.epochs=1", "features.copies=2")


def map_files() -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in Path("runs/.cache").glob("*.npy") if path.stat().st_size}


def test_trials_train_fresh_heads_on_the_backbone_of_one_training(
    make_plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, run = make_plan(*PROXY, "images.cache=none", "augment.mix.mixup=0.5"), RunFolder(tmp_path / "runs/tiny")
    make_maps(plan, run, 1, listen=ignore)
    proxy, made = run.search.proxy(1), map_files()
    assert {path.name for path in proxy.path.iterdir()} == {"weights.safetensors", "epochs.jsonl"}
    assert len(made) == 3
    trained = proxy.weights.stat().st_mtime_ns

    seen: list[dict[str, torch.Tensor]] = []
    delete = FoldFolder.delete

    def keep_weights(folder: FoldFolder) -> None:
        if folder.weights.exists():
            seen.append(load_tensors(folder.weights)[0])
        delete(folder)

    monkeypatch.setattr(FoldFolder, "delete", keep_weights)
    scores: list[float] = []
    trials = Trials(plan, run, (1,), build_trial_score(plan), workers=1)
    value = trials.train(0, plan.config, listen=ignore, on_score=lambda _f, _e, score: scores.append(score))
    assert value == scores[-1]
    assert value == trials.train(1, plan.config, listen=ignore, on_score=lambda *_: None)  # the same seed
    backbone = load_tensors(proxy.weights)[0]
    assert len(seen) == 2
    for name, tensor in seen[0].items():
        assert torch.equal(tensor, seen[1][name])
        assert torch.equal(tensor, backbone[name]) is name.startswith("backbone."), name
    assert proxy.weights.stat().st_mtime_ns == trained
    assert map_files() == made


def test_a_time_budget_that_ends_before_the_maps_keeps_the_trained_backbone(
    make_plan: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, run = make_plan(*PROXY, "images.cache=none"), RunFolder(tmp_path / "runs/tiny")
    with monkeypatch.context() as patch:
        patch.setattr(MapCache, "maps", None)
        with pytest.raises(TimeUsed):
            make_maps(plan, run, 1, listen=ignore)
    trained = run.search.proxy(1).weights.stat().st_mtime_ns
    with pytest.raises(TimeUsed):
        make_maps(dataclasses.replace(plan, deadline=time.monotonic() - 1), run, 1, listen=ignore)
    assert map_files() == {}
    make_maps(dataclasses.replace(plan, deadline=math.inf), run, 1, listen=ignore)
    assert len(map_files()) == 3
    assert run.search.proxy(1).weights.stat().st_mtime_ns == trained


def test_a_backbone_that_is_frozen_from_the_start_needs_no_training(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "runs/tiny")
    make_maps(make_plan(*PROXY), run, 0, listen=ignore)
    kept = tmp_path / "trained.safetensors"
    run.search.proxy(0).weights.rename(kept)
    plan = make_plan(*PROXY, "train.frozen_backbone=true", f"model.backbone_weights={kept}")
    assert head_config(plan.config, run, 0) is plan.config
    before = map_files()
    make_maps(plan, run, 0, listen=ignore)
    assert not run.search.proxy(0).weights.exists()
    assert map_files() == before  # the same backbone, wherever its file lies
