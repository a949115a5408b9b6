"""What the training of one network is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import processes
from pipeline.competition.folds.rows import FoldRows
from pipeline.competition.table import TrainTable
from pipeline.config import Config
from pipeline.images.dataset import TrainBatch, TrainImages, epoch_batches, train_loader
from pipeline.images.loader import Loader
from pipeline.images.readers import ImageSources
from pipeline.training.fold_folder import FoldFolder
from pipeline.training.image_inputs import train_augmentation


@dataclass(frozen=True)
class FoldTask:
    """One network to train: on what, as the config says, and where it is kept.

    Attributes:
        config: the run's configuration.
        table: all training rows.
        rows: which of them train and which validate.
        sources: the images of the table.
        folder: where the fold's files go.
        workers: processes that load images; 0 loads in the training's own.
    """

    config: Config
    table: TrainTable
    rows: FoldRows
    sources: ImageSources
    folder: FoldFolder
    workers: int

    def batches(self, epoch: int) -> list[Sequence[tuple[int, int]]]:
        """The keys (epoch, row) of this process's part of each batch of an epoch, counted from 0."""
        train = self.config.train
        whole = epoch_batches(
            self.rows.train, self.table.ids, epoch=epoch, seed=train.seed, batch_size=train.batch_size
        )
        return [processes.part_of(batch) for batch in whole]

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps."""
        return math.ceil(len(self.batches(0)) / self.config.train.accumulate)

    def open_loader(self, *, pin_memory: bool) -> Loader[TrainBatch]:
        """Loads the first epoch's batches, and any others that it is given then."""
        images = TrainImages(
            self.sources.train,
            ids=self.table.ids,
            targets=self.table.targets,
            augmentation=train_augmentation(self.config),
            seed=self.config.train.seed,
        )
        return train_loader(images, self.batches(0), workers=self.workers, pin_memory=pin_memory)
