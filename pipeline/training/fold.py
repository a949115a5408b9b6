"""Train one fold: build its objects from the config, run the loop epoch by epoch, keep what it gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import processes
from pipeline.config import Config
from pipeline.evaluation.metrics import Metric, get_metric
from pipeline.files import write_json_lines
from pipeline.inference.ensemble import sigmoid
from pipeline.inference.out_of_fold import image_form, predict_rows
from pipeline.inference.predict import Ensemble
from pipeline.inference.views import parse_views
from pipeline.model.weights import load_tensors, model_facts, save_tensors
from pipeline.seeds import stable_seed
from pipeline.training.engine import EpochSums, train_epoch
from pipeline.training.job import FoldJob
from pipeline.training.progress import EpochDone, Listener, Remark
from pipeline.training.setup import Training, build_training
from pipeline.training.watch import Watch, is_over


class ValidatedEpoch(NamedTuple):
    """A finished epoch of a fold, for whoever decides whether it is worth going on."""

    fold: int
    epoch: int  # from 1
    logits: NDArray[np.float64]  # (V, K) of the averaged weights, in the order of the fold's validation rows


def _go_on(_: ValidatedEpoch) -> None:
    pass


def train_fold(
    job: FoldJob,
    *,
    listen: Listener,
    on_epoch: Callable[[ValidatedEpoch], None] = _go_on,
    deadline: float = math.inf,
) -> bool:
    """Train until `train.epochs`, from the last saved state if there is one, be it in the middle of an epoch.

    Several processes may call this together: each trains and validates its part, the first one writes.

    What stands in `job.folder` afterwards: `weights.safetensors` (averaged weights of the kept epoch),
    `epochs.jsonl`, and `resume/` with the last state.

    Args:
        job: what is trained.
        listen: told of each step and epoch.
        on_epoch: called when an epoch is validated and saved; what it raises ends the training there.
        deadline: on the clock of `time.monotonic`; the training stops after it, its state saved.

    Returns:
        Whether it came to its end.

    Raises:
        TrainingError: the loss or the gradient is not finite.
        ImageError: an image cannot be read.
    """
    if is_over(deadline):
        return False
    train, fold, labels = job.config.train, job.rows.fold, job.table.labels
    steps = job.steps_per_epoch
    training = build_training(job.config, fold=fold, labels=labels, total_steps=steps * train.epochs)
    training.resume(job.folder)
    loader = job.open_loader(pin_memory=training.accelerator.device.type == "cuda")
    begun = len(training.records)
    for epoch in range(begun, train.epochs):
        if epoch > begun and is_over(deadline):
            return False  # what the last epoch saved stands
        loader.batches = job.batches(epoch)[training.sums.steps * train.accumulate :]
        training.freeze_backbone(epoch < train.freeze_backbone_epochs)
        watch = Watch(job, training, epoch, steps=steps, listen=listen, deadline=deadline)
        finished = train_epoch(
            loader,
            training,
            sums=training.sums,
            seed_of=partial(step_seed, train.seed, fold),
            on_step=watch.step,
            say=lambda sentence: listen(Remark(fold, sentence)),
            name_of=lambda row: job.table.ids[row],
        )
        if not finished:
            return False
        logits = _finish_epoch(job, training, watch.facts())
        listen(EpochDone(fold, training.records[-1]))
        on_epoch(ValidatedEpoch(fold, epoch + 1, logits))
    processes.from_first(lambda: _keep_weights(job, training))
    return True


def _finish_epoch(job: FoldJob, training: Training, facts: Mapping[str, float]) -> NDArray[np.float64]:
    """Validate the epoch, add its record and save all; the logits of the validation rows."""
    logits = _validate(job, training)
    scores = processes.from_first(lambda: _judge(job, logits))
    epoch = len(training.records) + 1
    training.records.append({"epoch": epoch, "loss": training.sums.mean_loss, **facts, **scores})
    training.sums = EpochSums()
    processes.from_first(lambda: _save_epoch(job, training))
    return logits


def step_seed(seed: int, fold: int, step: int) -> int:
    """Of what is drawn in a step; each of several processes draws for itself, the first as one alone would."""
    rank = processes.rank()
    return stable_seed(seed, fold, "step", step, *([rank] if rank else []))


def kept_epoch(config: Config, labels: Sequence[str], records: Sequence[Mapping[str, Any]]) -> int:
    """The epoch, from 1, whose weights are kept: the last, or with `select: best` the first best one."""
    if config.train.select == "last":
        return len(records)
    judge = _epoch_metrics(config, labels)[-1]
    sign = 1.0 if judge.greater_is_better else -1.0
    values = [-math.inf if record[judge.name] is None else sign * record[judge.name] for record in records]
    return values.index(max(values)) + 1


def _validate(job: FoldJob, training: Training) -> NDArray[np.float64]:
    """Logits (V, K) of the averaged weights for the validation rows."""
    processes.share_buffers(training.ema.module)  # which a full memory may have left apart
    config, table, rows = job.config, job.table, job.rows.validation
    if not rows.size:
        return np.empty((0, len(table.labels)))
    views = parse_views(["identity"], size=config.images.height_width)
    ensemble = Ensemble([training.ema.module], training.normalizer, views, image_form(config.images), "probability")
    device = training.accelerator.device
    return predict_rows(config, ensemble, table, rows, job.sources.evaluation, workers=job.workers, device=device)


def _judge(job: FoldJob, logits: NDArray[np.float64]) -> dict[str, float | None]:
    """mAP, and the competition's metric where it needs no thresholds; nothing where no row validates."""
    if not job.rows.validation.size:
        return {}
    targets = job.table.truths[job.rows.validation]
    metrics = _epoch_metrics(job.config, job.table.labels)
    values = {metric.name: metric.function(targets, sigmoid(logits)).value for metric in metrics}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _epoch_metrics(config: Config, labels: Sequence[str]) -> list[Metric]:
    """mAP, then the competition's metric where it needs no thresholds; the last one chooses epochs."""
    metric = get_metric(config.competition.metric, labels, own_functions=True)
    return [get_metric("map"), *([metric] if metric.takes == "probabilities" else [])]


def _save_epoch(job: FoldJob, training: Training) -> None:
    """Write the state after an epoch, its record, and its weights where they are the best so far."""
    best = job.config.train.select == "best"
    if best and kept_epoch(job.config, job.table.labels, training.records) == len(training.records):
        save_tensors(job.folder.best_weights, training.ema.module.state_dict(), {})
    training.save(job.folder)
    write_json_lines(job.folder.epochs, training.records)


def _keep_weights(job: FoldJob, training: Training) -> None:
    if job.config.train.select == "best":
        tensors, _ = load_tensors(job.folder.best_weights)
    else:
        tensors = training.ema.module.state_dict()
    save_tensors(job.folder.weights, tensors, model_facts(job.config.model, job.config.images, job.table.labels))
