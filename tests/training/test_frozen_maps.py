"""A head on stored maps: the same as a training with the backbone held, and the maps are made once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config import check_config, unused_keys
from pipeline.errors import ConfigError
from pipeline.images.decoding.decode import load_image
from pipeline.images.geometry import image_form
from pipeline.model.backbone import Backbone
from pipeline.model.build import backbone_of, build_model, build_normalizer, load_model
from pipeline.model.weights import load_tensors, model_facts, save_tensors
from pipeline.run.cv import build_task
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from pipeline.training.fold import train_model
from pipeline.training.fold_task import FoldTask
from pipeline.training.frozen_maps import FrozenMaps
from pipeline.training.image_inputs import train_augmentation
from tests.conftest import LABELS
from tests.e2e.commands import ignore, make_plan

FROZEN = ("model.backbone_weights=backbone.safetensors", "features.copies=2")


def maps_of(task: FoldTask) -> FrozenMaps:
    assert task.maps is not None
    return task.maps


@pytest.fixture
def make_task(tiny_config: Path) -> Callable[..., FoldTask]:
    """Makes the task of a fold of the small competition, on a backbone with fixed weights."""
    plan = make_plan(tiny_config)
    torch.manual_seed(0)
    model = build_model(plan.config.model, plan.config.images, num_labels=len(LABELS), pretrained=False)
    with torch.no_grad():
        for parameter in model.parameters():  # a fresh network gives nearly the same map everywhere
            parameter.mul_(1.5)
    facts = model_facts(plan.config.model, plan.config.images, LABELS, backbone_of(model))
    save_tensors(Path("backbone.safetensors"), model.state_dict(), facts)

    def make(name: str, *overrides: str, frozen: bool = True, fold: int = 1, **changes: float) -> FoldTask:
        words = (*FROZEN, f"train.frozen_backbone={frozen}".lower(), *overrides)
        changed: Plan = dataclasses.replace(make_plan(tiny_config, *words), **changes)  # type: ignore[arg-type]
        run = RunFolder(Path("runs") / name)
        return build_task(changed, run, fold, folder=run.fold(fold), listen=ignore)

    return make


def test_a_head_on_maps_equals_a_training_with_the_backbone_held(
    make_task: Callable[..., FoldTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_task("stored")
    assert train_model(stored, listen=ignore)

    plain = Backbone._features

    def as_stored(self: Backbone, images: Tensor) -> Tensor:
        return plain(self, images).half().float()

    monkeypatch.setattr(Backbone, "_features", as_stored)
    held = make_task("held", "train.freeze_backbone_epochs=2", frozen=False)
    assert train_model(held, listen=ignore)
    ours, theirs = (load_tensors(task.folder.weights)[0] for task in (stored, held))
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-5, msg=name)
    fresh = load_tensors(Path("backbone.safetensors"))[0]
    assert all(torch.equal(ours[name], fresh[name]) for name in ours if name.startswith("backbone."))
    assert not torch.equal(ours["projection.weight"], fresh["projection.weight"])


def test_maps_are_of_the_augmented_and_the_plain_image(make_task: Callable[..., FoldTask]) -> None:
    task = make_task("maps")
    maps, config = maps_of(task), task.config
    model = load_model(Path("backbone.safetensors"), device=torch.device("cpu"))
    pixels = load_image(task.table.paths[5], image_form(config.images))
    augment, id_ = train_augmentation(config), task.table.ids[5]
    versions = [augment(pixels, key=(0, copy, id_)) for copy in range(2)] + [pixels]
    images = torch.from_numpy(np.stack(versions)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = backbone_of(model.model)(build_normalizer(config.images, model.model)(images))
    for source, wanted in zip([*maps.copies, maps.plain], expected, strict=True):
        np.testing.assert_allclose(source.load(5), wanted.permute(1, 2, 0).numpy(), rtol=2e-3, atol=2e-3)

    loader = task.open_loader()
    for epoch in range(3):
        loader.batches = task.batches(epoch)
        for batch in loader:
            rows = batch.indices.tolist()
            stored = np.stack([maps.copies[epoch % 2].load(row) for row in rows])
            np.testing.assert_array_equal(batch.images.permute(0, 2, 3, 1), stored)
            np.testing.assert_array_equal(batch.targets, task.table.targets[rows])


def test_maps_are_made_once_for_folds_seeds_and_heads(make_task: Callable[..., FoldTask]) -> None:
    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in Path("runs/.cache").glob("*.npy") if path.stat().st_size}

    first = maps_of(make_task("one", "images.cache=none"))
    made = files()
    assert len(made) == 3
    others = ("train.lr=0.1", "model.hidden_dim=32", "model.pooled_residual=true", "train.seeds=2", "train.workers=1")
    again = maps_of(make_task("two", "images.cache=none", *others, fold=0))
    assert files() == made
    np.testing.assert_array_equal(again.copies[1].load(3), first.copies[1].load(3))
    maps_of(make_task("three", "images.cache=none", "features.copies=3"))
    assert len(files()) == 4  # one copy more
    maps_of(make_task("four", "images.cache=none", "train.seed=1"))
    assert len(files()) == 6  # the plain maps are shared
    maps_of(make_task("five", "images.cache=none", "images.size=64"))
    assert len(files()) == 9
    assert {name: data for name, data in files().items() if name in made} == made


def test_a_deadline_keeps_the_finished_copies_and_trains_nothing(
    make_task: Callable[..., FoldTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = make_task("late", "images.cache=none", deadline=time.monotonic() + 1e6)
    now = time.monotonic()
    readings = iter([now] * 7 + [now + 2e6] * 100)  # a copy of 24 images is 6 batches
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.training.frozen_maps.time", SimpleNamespace(monotonic=lambda: next(readings)))
        assert late.maps is None
    assert not train_model(late, listen=ignore)
    assert not late.folder.weights.exists()
    (kept,) = Path("runs/.cache").glob("*.npy")
    written = kept.stat().st_mtime_ns
    assert [path.name for path in Path("runs/.cache").glob(".*")] == []
    maps_of(make_task("late", "images.cache=none"))
    assert kept.stat().st_mtime_ns == written
    assert len([*Path("runs/.cache").glob("*.npy")]) == 3


@pytest.mark.parametrize(
    ("data", "part"),
    [
        ({"model": {"pretrained": False}}, "needs a trained backbone"),
        ({"augment": {"mix": {"mixup": 0.4}}}, "augment.mix cannot mix images"),
    ],
)
def test_what_frozen_maps_cannot_do_is_refused(data: dict[str, object], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        check_config({**data, "train": {"frozen_backbone": True}}, source="x")


def test_keys_of_the_backbone_are_noted() -> None:
    config = check_config({"train": {"frozen_backbone": True, "backbone_lr": 1e-5}}, source="x")
    assert config.model.pooled_residual  # the recipe frozen_head
    assert unused_keys(config) == ["train.backbone_lr is set but train.frozen_backbone leaves nothing for it"]


def test_a_full_disk_is_found_before_the_backbone_runs(
    make_task: Callable[..., FoldTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task("full", "images.cache=none")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(ConfigError, match=r"do not fit on the disk(.|\n)*features\.copies"):
        _ = task.maps
