"""The models of one fold, or of the full fit: trained one after the other, each with a seed of its own."""

from __future__ import annotations

import math

from pipeline import processes
from pipeline.competition.table import TrainTable
from pipeline.config import Config
from pipeline.images.sources import ImageSources
from pipeline.inference.out_of_fold import FoldRows
from pipeline.runs import FoldFolder
from pipeline.training.fold import train_fold
from pipeline.training.progress import EpochDone, Event, Listener, Remark, StepDone


def train_members(
    config: Config,
    table: TrainTable,
    rows: FoldRows,
    *,
    sources: ImageSources,
    folder: FoldFolder,
    workers: int,
    listen: Listener,
    deadline: float = math.inf,
) -> bool:
    """Train `train.seeds` models by `train_fold`, with the seeds `train.seed`, `train.seed` + 1 and so on.

    A model that was trained before is kept as it is; one that was begun goes on. The first one lies in `folder`,
    the others as `FoldFolder.members` says. Rows without any that validate are the full fit, whose last epoch is
    kept whatever `train.select` says.

    Args:
        config: the run's configuration.
        table: all training rows.
        rows: which of them train and which validate.
        sources: the images of the table, for training and for evaluation.
        folder: where the fold's files go.
        workers: processes that load images; 0 loads in this one.
        listen: told of each step and epoch; with several models, by whose seed.
        deadline: on the clock of `time.monotonic`; the training stops after it, its state saved.

    Returns:
        Whether all of them are trained.

    Raises:
        PipelineError: as `train_fold` does.
    """
    for number, member in enumerate(folder.members(config.train)):
        if processes.from_first(member.weights.exists):
            continue
        seed = config.train.seed + number
        finished = train_fold(
            _config_of(config, rows, seed=seed),
            table,
            rows,
            sources=sources,
            folder=member,
            workers=workers,
            listen=listen if config.train.seeds == 1 else _naming(listen, seed),
            deadline=deadline,
        )
        if not finished:
            return False
    return True


def _config_of(config: Config, rows: FoldRows, *, seed: int) -> Config:
    """The run's configuration with this seed, and where no row validates, no choice of an epoch."""
    changed: dict[str, object] = {"seed": seed}
    if not rows.validation.size:
        changed["select"] = "last"
    return config.model_copy(update={"train": config.train.model_copy(update=changed)})


def _naming(listen: Listener, seed: int) -> Listener:
    def named(event: Event) -> None:
        listen(event._replace(seed=seed) if isinstance(event, StepDone | EpochDone | Remark) else event)

    return named
