"""Cheap trials: one trained backbone per fold, its feature maps on disk, and heads that train on these alone.

The backbone has seen the training rows with the config's own loss and head. It fits them better than new images,
and it suits the values it was trained with; what a loss does to the backbone itself is not judged at all.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.competition.folds.rows import FoldRows, rows_of
from pipeline.config import Config
from pipeline.device import autocast, explained_memory_errors, loading_workers, pick_device, resolve_precision
from pipeline.errors import ConfigError
from pipeline.events import FoldNote, Listener, StepFinished, TrialStep
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
from pipeline.model.build import backbone_of
from pipeline.model.start import start_model
from pipeline.model.weights import TrainedModel, load_model
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from pipeline.search.objective import OnScore
from pipeline.search.study import TimeUsed
from pipeline.search.trial_score import Judge
from pipeline.seeds import stable_seed
from pipeline.training.build import Training, training_of
from pipeline.training.fold import train_fold
from pipeline.training.fold_folder import FoldFolder
from pipeline.training.fold_task import FoldTask
from pipeline.training.image_inputs import open_sources, train_augmentation
from pipeline.training.loop import EpochSums, Step, train_epoch

COPIES = 4  # differently augmented feature maps of each training row, which the epochs take in turn
_LOCK_SECONDS = 24 * 3600
Maps = NDArray[np.float16]


@dataclass(frozen=True)
class FoldMaps:
    """A fold's feature maps of D channels, half precision, mapped from disk.

    Attributes:
        train: (COPIES, rows.train, D, h, w).
        validation: (rows.validation, D, h, w), not augmented.
    """

    rows: FoldRows
    train: Maps
    validation: Maps


@dataclass(frozen=True)
class HeadTrials:
    """Trials that train a head on the feature maps of each fold; see `Trials` for the attributes."""

    plan: Plan
    maps: tuple[FoldMaps, ...]
    judge: Judge

    def train(self, number: int, config: Config, *, listen: Listener, on_score: OnScore) -> float:
        """Train a fresh projection, decoder and classifier per fold; the mean of the folds' last scores."""
        with explained_memory_errors():
            return float(np.mean([self._fold(maps, number, config, listen, on_score) for maps in self.maps]))

    def _fold(self, maps: FoldMaps, number: int, config: Config, listen: Listener, on_score: OnScore) -> float:
        train, rows, table = config.train, maps.rows, self.plan.table
        targets = torch.from_numpy(np.array(table.targets, np.float32))
        place = {int(row): position for position, row in enumerate(rows.train)}
        steps = math.ceil(max(1, len(rows.train) // train.batch_size) / train.accumulate)
        training = _head_training(config, rows.fold, table.labels, total_steps=steps * train.epochs)
        done, score = 0, math.nan

        def batches(epoch: int) -> Iterator[TrainBatch]:
            copy = maps.train[epoch % COPIES]
            for keys in epoch_batches(rows.train, table.ids, epoch=epoch, seed=train.seed, batch_size=train.batch_size):
                indices = [index for _, index in keys]
                features = torch.from_numpy(copy[[place[index] for index in indices]])
                yield TrainBatch(features, targets[indices], torch.tensor(indices))

        def tell(step: Step) -> bool:
            nonlocal done
            done += 1
            epoch = (done - 1) // steps + 1
            of = StepFinished(rows.fold, epoch, train.epochs, done, steps * train.epochs, step.loss, step.lr, 0.0)
            listen(TrialStep(number, of))
            return time.monotonic() <= self.plan.deadline

        for epoch in range(train.epochs):
            finished = train_epoch(
                batches(epoch),
                training,
                sums=EpochSums(),
                seed_of=lambda step: stable_seed(train.seed, rows.fold, "step", step),
                on_step=tell,
                say=lambda sentence: listen(FoldNote(rows.fold, sentence)),
                name_of=lambda row: table.ids[row],
            )
            if not finished:
                raise TimeUsed
            score = self.judge(rows.fold, _logits(training, maps.validation, config))
            on_score(rows.fold, epoch + 1, score)
        return score


class _ToFloat(nn.Module):
    """Feature maps come in half precision."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.float()


def _head_training(config: Config, fold: int, labels: tuple[str, ...], *, total_steps: int) -> Training:
    """As a full training begins, but for the backbone, whose place feature maps take, and for what concerns it."""
    no_backbone = {"gradient_checkpointing": False, "backbone_lr": None, "layer_decay": 1.0, "compile": False}
    config = config.model_copy(update={"train": config.train.model_copy(update=no_backbone)})
    torch.manual_seed(stable_seed(config.train.seed, fold, "weights"))
    plain = config.model.model_copy(update={"pretrained": False, "backbone_weights": None, "weights": None})
    model, _ = start_model(plain, config.images, labels=labels)
    model.backbone = nn.Identity()
    return training_of(model, _ToFloat(), config=config, labels=labels, total_steps=total_steps)


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
    """The fold's feature maps; the backbone is trained, and the maps are made, where that is not done yet.

    Raises:
        ConfigError: the disk has no room for them.
        PipelineError: as training raises.
        TimeUsed: the plan's deadline passed; the training's state is saved.
    """
    folder, rows = run.search.proxy(fold), rows_of(plan.folds, fold)
    folder.path.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.path / "lock", timeout=_LOCK_SECONDS), explained_memory_errors():
        if not folder.done.exists():
            _make_maps(plan, run, folder, rows, listen)
    read = {name: np.load(_file(folder, name), mmap_mode="r") for name in ("train", "validation")}
    return FoldMaps(rows, read["train"], read["validation"])


def _file(folder: FoldFolder, part: str) -> Path:
    return folder.path / f"{part}.npy"


def _make_maps(plan: Plan, run: RunFolder, folder: FoldFolder, rows: FoldRows, listen: Listener) -> None:
    config = plan.config.model_copy(update={"train": plan.config.train.model_copy(update={"select": "last"})})
    sources = open_sources(plan.config, plan.table.paths, folder=run.cache, record=run.search.images, listen=listen)
    workers, pin = loading_workers(config.train.workers, pick_device()), pick_device().type == "cuda"
    task = FoldTask(config, plan.table, rows, sources, folder, workers)
    if not folder.weights.exists() and not train_fold(task, listen=listen, deadline=plan.deadline):
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
        if not _file(folder, part).exists():  # of a command whose time was used
            _write_maps(_file(folder, part), trained, config, _in_time(images, plan.deadline), (*count, *shape))
    folder.delete_resume()
    write_json(folder.done, {"copies": COPIES})


def _in_time(batches: Iterator[Tensor], deadline: float) -> Iterator[Tensor]:
    """The batches. Raises TimeUsed when the deadline passes."""
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
    """Feature maps of the images in order, (…, D, h, w) float16, as .npy."""
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
