"""The models of one fold, or of the full fit: trained one after the other, each with a seed of its own."""

from __future__ import annotations

import math
from dataclasses import replace

from pipeline import processes
from pipeline.config import Config
from pipeline.training.fold import train_fold
from pipeline.training.job import FoldJob
from pipeline.training.progress import EpochDone, Event, Listener, Remark, StepDone


def train_members(job: FoldJob, *, listen: Listener, deadline: float = math.inf) -> bool:
    """Train `train.seeds` models by `train_fold`, with the seeds `train.seed`, `train.seed` + 1 and so on.

    A model that was trained before is kept as it is; one that was begun goes on. The first one lies in `job.folder`,
    the others as `FoldFolder.members` says. Rows without any that validate are the full fit, whose last epoch is
    kept whatever `train.select` says.

    Args:
        job: the first of the models.
        listen: told of each step and epoch; with several models, by whose seed.
        deadline: on the clock of `time.monotonic`; the training stops after it, its state saved.

    Returns:
        Whether all of them are trained.

    Raises:
        PipelineError: as `train_fold` does.
    """
    train = job.config.train
    for number, folder in enumerate(job.folder.members(train)):
        if processes.from_first(folder.weights.exists):
            continue
        seed = train.seed + number
        member = replace(job, config=_config_of(job, seed=seed), folder=folder)
        if not train_fold(member, listen=listen if train.seeds == 1 else _naming(listen, seed), deadline=deadline):
            return False
    return True


def _config_of(job: FoldJob, *, seed: int) -> Config:
    """The run's configuration with this seed, and where no row validates, no choice of an epoch."""
    changed: dict[str, object] = {"seed": seed}
    if not job.rows.validation.size:
        changed["select"] = "last"
    return job.config.model_copy(update={"train": job.config.train.model_copy(update=changed)})


def _naming(listen: Listener, seed: int) -> Listener:
    def named(event: Event) -> None:
        listen(event._replace(seed=seed) if isinstance(event, StepDone | EpochDone | Remark) else event)

    return named
