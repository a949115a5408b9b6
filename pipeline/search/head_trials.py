"""Head trials: train one backbone per fold, save its feature maps, then train only heads on them.

The backbone was trained on the training rows with the config's own loss and head. So it fits these rows better than
new images, it favours the config's own values, and the effect of a loss on the backbone is not measured.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.competition.folds.rows import FoldRows, rows_of
from pipeline.competition.table import TrainTable
from pipeline.config import Config
from pipeline.device import autocast, explained_memory_errors, pick_device, resolve_precision
from pipeline.errors import ConfigError
from pipeline.events import FoldNote, Listener, StepFinished, TrialStep, ignore
from pipeline.files import write_atomically, write_json
from pipeline.images.dataset import (
    EvalImages,
    TrainBatch,
    TrainImages,
    epoch_batches,
    eval_loader,
    train_loader,
)
from pipeline.images.geometry import image_form
from pipeline.images.readers import ImageSource
from pipeline.model.build import TrainedModel, backbone_of, load_model, start_model
from pipeline.run.cv import build_task
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from pipeline.search.objective import OnScore
from pipeline.search.study import TimeUsed
from pipeline.search.trial_score import TrialScore
from pipeline.seeds import stable_seed
from pipeline.training.build import training_of
from pipeline.training.fold import train_model
from pipeline.training.fold_folder import FoldFolder
from pipeline.training.fold_task import steps_per_epoch
from pipeline.training.image_inputs import train_augmentation
from pipeline.training.loop import EpochTotals, Step, Training, train_epoch

COPIES = 4  # augmented versions of each training row; epoch n uses copy n modulo 4
_LOCK_SECONDS = 24 * 3600
Maps = NDArray[np.float16]


@dataclass(frozen=True)
class FoldMaps:
    """A fold's feature maps with D channels, float16, memory-mapped.

    Attributes:
        train: (COPIES, rows.train, D, h, w).
        validation: (rows.validation, D, h, w), not augmented.
    """

    fold: int
    rows: FoldRows
    train: Maps
    validation: Maps


@dataclass(frozen=True)
class HeadTrials:
    """Trials that train a head on the feature maps of each fold; see `FullTrials` for the attributes."""

    plan: Plan
    maps: tuple[FoldMaps, ...]
    trial_score: TrialScore

    def train(self, number: int, config: Config, *, listen: Listener, on_score: OnScore) -> float:
        """Train a new projection, decoder and classifier per fold and return the mean of the folds' last scores."""
        with explained_memory_errors():
            return float(np.mean([self._fold(maps, number, config, listen, on_score) for maps in self.maps]))

    def _fold(self, maps: FoldMaps, number: int, config: Config, listen: Listener, on_score: OnScore) -> float:
        train, rows, table = config.train, maps.rows, self.plan.table
        targets = torch.from_numpy(np.array(table.targets, np.float32))
        place = {int(row): position for position, row in enumerate(rows.train)}
        steps = steps_per_epoch(len(rows.train), train)
        training = _head_training(config, maps, table, total_steps=steps * train.epoch_count)
        done, score = 0, math.nan

        def batches(epoch: int) -> Iterator[TrainBatch]:
            copy = maps.train[epoch % COPIES]
            for keys in epoch_batches(rows.train, table.ids, epoch=epoch, seed=train.seed, batch_size=train.batch_size):
                indices = [index for _, index in keys]
                features = torch.from_numpy(copy[[place[index] for index in indices]])
                yield TrainBatch(features, targets[indices], torch.tensor(indices))

        def on_step(step: Step) -> bool:
            nonlocal done
            done += 1
            epoch = (done - 1) // steps + 1
            finished_step = StepFinished(
                maps.fold, epoch, train.epoch_count, done, steps * train.epoch_count, step.loss, step.lr, 0.0
            )
            listen(TrialStep(number, finished_step))
            return time.monotonic() <= self.plan.deadline

        for epoch in range(train.epoch_count):
            training.totals = EpochTotals()
            finished = train_epoch(
                batches(epoch),
                training,
                seed_of=lambda step: stable_seed(train.seed, maps.fold, "step", step),
                on_step=on_step,
                note=lambda sentence: listen(FoldNote(maps.fold, sentence)),
                name_of=lambda row: table.ids[row],
            )
            if not finished:
                raise TimeUsed
            score = self.trial_score(maps.fold, _logits(training, maps.validation, config))
            on_score(maps.fold, epoch + 1, score)
        return score


class _ToFloat(nn.Module):
    """Takes the place of the pixel normalizer: converts feature maps from float16."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.float()


def _head_training(config: Config, maps: FoldMaps, table: TrainTable, *, total_steps: int) -> Training:
    """The training of a fold, with feature maps in place of the backbone and without the settings of the backbone."""
    no_backbone = {"gradient_checkpointing": False, "backbone_lr": None, "layer_decay": 1.0, "compile": False}
    config = config.model_copy(update={"train": config.train.model_copy(update=no_backbone)})
    torch.manual_seed(stable_seed(config.train.seed, maps.fold, "weights"))
    plain = config.model.model_copy(update={"pretrained": False, "backbone_weights": None, "weights": None})
    model = start_model(plain, config.images, labels=table.labels, listen=ignore)
    model.backbone = nn.Identity()
    targets = table.targets[maps.rows.train]
    return training_of(model, _ToFloat(), config=config, labels=table.labels, total_steps=total_steps, targets=targets)


@torch.inference_mode()
def _logits(training: Training, maps: Maps, config: Config) -> NDArray[np.float64]:
    device, model = training.accelerator.device, training.ema.module
    precision = resolve_precision(config.train.precision, device)
    size = config.predict.batch_size or config.train.batch_size
    with autocast(device, precision):
        parts = [
            model(training.normalizer(torch.from_numpy(np.array(maps[start : start + size])).to(device))).float()
            for start in range(0, len(maps), size)
        ]
    return np.asarray(torch.cat(parts).cpu().numpy(), np.float64)


def open_maps(plan: Plan, run: RunFolder, fold: int, *, listen: Listener) -> FoldMaps:
    """Read the fold's feature maps; if there are none, train the backbone and write them first.

    Raises:
        ConfigError: the disk has no room for them.
        PipelineError: as `train_fold`.
        TimeUsed: the plan's deadline passed; the training's state is saved.
    """
    folder, rows = run.search.proxy(fold), rows_of(plan.folds, fold)
    folder.path.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.path / "lock", timeout=_LOCK_SECONDS), explained_memory_errors():
        if not folder.done.exists():
            _make_maps(plan, run, folder, fold, listen)
    read = {name: np.load(_file(folder, name), mmap_mode="r") for name in ("train", "validation")}
    return FoldMaps(fold, rows, read["train"], read["validation"])


def _file(folder: FoldFolder, part: str) -> Path:
    return folder.path / f"{part}.npy"


def _make_maps(plan: Plan, run: RunFolder, folder: FoldFolder, fold: int, listen: Listener) -> None:
    config = plan.config.model_copy(update={"train": plan.config.train.model_copy(update={"select": "last"})})
    task = build_task(replace(plan, config=config), run, fold, folder=folder, listen=listen)
    rows, sources, workers, pin = task.rows, task.sources, task.runtime.workers, task.runtime.device.type == "cuda"
    if not folder.weights.exists() and not train_model(task, listen=listen, deadline=plan.deadline):
        raise TimeUsed
    trained = load_model(folder.weights, device=pick_device())
    augmented = TrainImages(
        sources.train,
        ids=plan.table.ids,
        targets=plan.table.targets,
        augmentation=train_augmentation(config),
        seed=config.train.seed,
    )
    size = config.train.batch_size
    shape = _map_shape(trained, sources.evaluation)
    _check_room(folder.path, COPIES * len(rows.train) + len(rows.validation), shape)

    def training_images() -> Iterator[Tensor]:
        keys = [(copy, int(row)) for copy in range(COPIES) for row in rows.train]
        batches = [keys[start : start + size] for start in range(0, len(keys), size)]
        yield from (batch.images for batch in train_loader(augmented, batches, workers=workers, pin_memory=pin))

    def validation_images() -> Iterator[Tensor]:
        images = EvalImages(plan.table.paths, forms=[image_form(config.images)], source=sources.evaluation)
        loader = eval_loader(images, rows.validation, batch_size=size, workers=workers, pin_memory=pin)
        yield from (batch.images[0] for batch in loader)

    for part, images, count in (
        ("train", training_images(), (COPIES, len(rows.train))),
        ("validation", validation_images(), (len(rows.validation),)),
    ):
        if not _file(folder, part).exists():  # written before a time budget ended
            _write_maps(_file(folder, part), trained, config, _in_time(images, plan.deadline), (*count, *shape))
    folder.delete_resume()
    write_json(folder.done, {"copies": COPIES})


def _in_time(batches: Iterator[Tensor], deadline: float) -> Iterator[Tensor]:
    """The same batches. Raises TimeUsed when the deadline passes."""
    for batch in batches:
        if time.monotonic() > deadline:
            raise TimeUsed
        yield batch


@torch.inference_mode()
def _map_shape(trained: TrainedModel, source: ImageSource) -> tuple[int, ...]:
    height, width, channels = source.shape
    pixels = torch.zeros((1, channels, height, width), dtype=torch.uint8, device=pick_device())
    return tuple(backbone_of(trained.model)(trained.normalizer(pixels)).shape[1:])


def _check_room(folder: Path, count: int, shape: tuple[int, ...]) -> None:
    needed, free = 2 * count * math.prod(shape), shutil.disk_usage(folder).free
    if needed > free // 2:
        raise ConfigError(
            f"search.proxy=head: the feature maps do not fit on the disk of {folder}",
            expected=f"twice {needed / 1e9:.1f} GB of room",
            got=f"{free / 1e9:.1f} GB",
            remedy="search fewer folds (search.folds), use a smaller images.size, or set search.proxy=none",
        )


def _write_maps(
    path: Path, trained: TrainedModel, config: Config, images: Iterator[Tensor], shape: tuple[int, ...]
) -> None:
    """Write the feature maps of the images, in order, as a .npy file of `shape` (..., D, h, w) in float16."""
    device, backbone = pick_device(), backbone_of(trained.model)
    precision = resolve_precision(config.train.precision, device)

    @torch.inference_mode()
    def write(temporary: Path) -> None:
        maps = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
        flat, done = maps.reshape(-1, *shape[-3:]), 0
        for batch in images:
            with autocast(device, precision):
                features = backbone(trained.normalizer(batch.to(device)))
            largest = float(np.finfo(np.float16).max)
            flat[done : done + len(batch)] = features.float().clamp(-largest, largest).cpu().numpy()
            done += len(batch)
        maps.flush()

    write_atomically(path, write)
