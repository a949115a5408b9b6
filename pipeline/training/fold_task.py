"""The training of one network: rows, images, settings, and the folder of its files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from pipeline import processes
from pipeline.competition.folds.rows import FoldRows
from pipeline.competition.table import TrainTable
from pipeline.config import Config, TrainConfig
from pipeline.images.dataset import TrainBatch, TrainImages, TrainMaps, epoch_batches, train_loader
from pipeline.images.loader import Loader
from pipeline.images.readers import ImageSources
from pipeline.prediction.predict import Runtime
from pipeline.training.fold_folder import FoldFolder
from pipeline.training.frozen_maps import FrozenMaps, MapCache
from pipeline.training.image_inputs import train_augmentation


@dataclass(frozen=True)
class FoldTask:
    """One network to train, and then to predict with.

    Attributes:
        config: the run's configuration.
        table: all training rows.
        rows: which of them train and which validate.
        sources: the images of the table.
        folder: the fold's files.
        runtime: where and how this process computes.
        map_cache: with `train.frozen_backbone`, the maps that the head trains on.
    """

    config: Config
    table: TrainTable
    rows: FoldRows
    sources: ImageSources
    folder: FoldFolder
    runtime: Runtime
    map_cache: MapCache | None = None

    @cached_property
    def validation_truths(self) -> NDArray[Any]:
        """(V, K) what the predictions for the validation rows are scored against."""
        return self.table.truths[self.rows.validation]

    @property
    def maps(self) -> FrozenMaps | None:
        """The maps that take the place of the images; None without a frozen backbone."""
        return None if self.map_cache is None else self.map_cache.maps

    def batches(self, epoch: int) -> list[Sequence[tuple[int, int]]]:
        """The keys (epoch, row) of this process's part of each batch of an epoch, counted from 0."""
        train = self.config.train
        whole = epoch_batches(
            self.rows.train, self.table.ids, epoch=epoch, seed=train.seed, batch_size=train.batch_size
        )
        return [processes.part_of(batch) for batch in whole]

    def open_loader(self) -> Loader[TrainBatch]:
        """A loader without batches; each epoch sets its own."""
        pin_memory = self.runtime.device.type == "cuda"
        if self.maps is not None:
            maps = TrainMaps(self.maps.copies, self.table.targets)
            return train_loader(maps, [], workers=self.runtime.workers, pin_memory=pin_memory)
        images = TrainImages(
            self.sources.train,
            ids=self.table.ids,
            targets=self.table.targets,
            augmentation=train_augmentation(self.config),
            seed=self.config.train.seed,
        )
        return train_loader(images, [], workers=self.runtime.workers, pin_memory=pin_memory)


def steps_per_epoch(rows: int, train: TrainConfig) -> int:
    """Optimizer steps of an epoch over so many rows, of which `epoch_batches` drops those of a short last batch."""
    return math.ceil(max(1, rows // train.batch_size) / train.accumulate)
