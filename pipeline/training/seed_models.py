"""The models of one fold, or of the full fit: trained one after the other, each with a seed of its own."""

from __future__ import annotations

import math
from dataclasses import replace

from pipeline import processes
from pipeline.config import Config
from pipeline.events import EpochFinished, Event, FoldNote, Listener, StepFinished
from pipeline.training.fold import train_fold
from pipeline.training.fold_task import FoldTask


def train_seed_models(task: FoldTask, *, listen: Listener, deadline: float = math.inf) -> bool:
    """Train `train.seeds` models by `train_fold`, with the seeds `train.seed`, `train.seed` + 1 and so on.

    A model that was trained before is kept as it is; one that was begun goes on. The first one lies in `task.folder`,
    the others as `FoldFolder.members` says. Rows without any that validate are the full fit, whose last epoch is
    kept whatever `train.select` says.

    Args:
        task: the first of the models.
        listen: told of each step and epoch; with several models, by whose seed.
        deadline: on the clock of `time.monotonic`; the training stops after it, its state saved.

    Returns:
        Whether all of them are trained.

    Raises:
        PipelineError: as `train_fold` does.
    """
    train = task.config.train
    for number, folder in enumerate(task.folder.seed_models(train)):
        if processes.from_first(folder.weights.exists):
            continue
        seed = train.seed + number
        member = replace(task, config=_config_of(task, seed=seed), folder=folder)
        if not train_fold(member, listen=listen if train.seeds == 1 else _naming(listen, seed), deadline=deadline):
            return False
    return True


def _config_of(task: FoldTask, *, seed: int) -> Config:
    """The run's configuration with this seed, and where no row validates, no choice of an epoch."""
    changed: dict[str, object] = {"seed": seed}
    if not task.rows.validation.size:
        changed["select"] = "last"
    return task.config.model_copy(update={"train": task.config.train.model_copy(update=changed)})


def _naming(listen: Listener, seed: int) -> Listener:
    def named(event: Event) -> None:
        listen(event._replace(seed=seed) if isinstance(event, StepFinished | EpochFinished | FoldNote) else event)

    return named
