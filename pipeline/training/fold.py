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
from pipeline.events import EpochFinished, FoldNote, Listener
from pipeline.files import write_json_lines
from pipeline.images.geometry import image_form
from pipeline.metrics.registry import Metric, get_metric
from pipeline.model.build import backbone_of
from pipeline.model.weights import load_tensors, model_facts, save_tensors
from pipeline.prediction.ensemble import sigmoid
from pipeline.prediction.out_of_fold import predict_rows
from pipeline.prediction.predict import Ensemble
from pipeline.prediction.tta import parse_views
from pipeline.seeds import stable_seed
from pipeline.training.build import Training, build_training
from pipeline.training.fold_task import FoldTask
from pipeline.training.loop import EpochSums, train_epoch
from pipeline.training.step_callback import StepCallback, is_over


class ValidatedEpoch(NamedTuple):
    """A finished epoch of a fold, for whoever decides whether it is worth going on."""

    fold: int
    epoch: int  # from 1
    logits: NDArray[np.float64]  # (V, K) of the averaged weights, in the order of the fold's validation rows


def _go_on(_: ValidatedEpoch) -> None:
    pass


def train_fold(
    task: FoldTask,
    *,
    listen: Listener,
    on_epoch: Callable[[ValidatedEpoch], None] = _go_on,
    deadline: float = math.inf,
) -> bool:
    """Train until `train.epochs`, from the last saved state if there is one, be it in the middle of an epoch.

    Several processes may call this together: each trains and validates its part, the first one writes.

    What stands in `task.folder` afterwards: `weights.safetensors` (averaged weights of the kept epoch),
    `epochs.jsonl`, and `resume/` with the last state.

    Args:
        task: what is trained.
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
    train, fold, labels = task.config.train, task.rows.fold, task.table.labels
    steps = task.steps_per_epoch
    training = build_training(task.config, fold=fold, labels=labels, total_steps=steps * train.epochs)
    training.resume(task.folder)
    loader = task.open_loader(pin_memory=training.accelerator.device.type == "cuda")
    begun = len(training.records)
    for epoch in range(begun, train.epochs):
        if epoch > begun and is_over(deadline):
            return False  # what the last epoch saved stands
        loader.batches = task.batches(epoch)[training.sums.steps * train.accumulate :]
        training.freeze_backbone(epoch < train.freeze_backbone_epochs)
        watch = StepCallback(task, training, epoch, steps=steps, listen=listen, deadline=deadline)
        finished = train_epoch(
            loader,
            training,
            sums=training.sums,
            seed_of=partial(step_seed, train.seed, fold),
            on_step=watch.step,
            say=lambda sentence: listen(FoldNote(fold, sentence)),
            name_of=lambda row: task.table.ids[row],
        )
        if not finished:
            return False
        logits = _finish_epoch(task, training, watch.facts())
        listen(EpochFinished(fold, training.records[-1]))
        on_epoch(ValidatedEpoch(fold, epoch + 1, logits))
    processes.from_first(lambda: _keep_weights(task, training))
    return True


def _finish_epoch(task: FoldTask, training: Training, facts: Mapping[str, float]) -> NDArray[np.float64]:
    """Validate the epoch, add its record and save all; the logits of the validation rows."""
    logits = _validate(task, training)
    scores = processes.from_first(lambda: _judge(task, logits))
    epoch = len(training.records) + 1
    training.records.append({"epoch": epoch, "loss": training.sums.mean_loss, **facts, **scores})
    training.sums = EpochSums()
    processes.from_first(lambda: _save_epoch(task, training))
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


def _validate(task: FoldTask, training: Training) -> NDArray[np.float64]:
    """Logits (V, K) of the averaged weights for the validation rows."""
    processes.share_buffers(training.ema.module)  # which a full memory may have left apart
    config, table, rows = task.config, task.table, task.rows.validation
    if not rows.size:
        return np.empty((0, len(table.labels)))
    views = parse_views(["identity"], size=config.images.height_width)
    ensemble = Ensemble([training.ema.module], training.normalizer, views, image_form(config.images), "probability")
    device = training.accelerator.device
    return predict_rows(config, ensemble, table, rows, task.sources.evaluation, workers=task.workers, device=device)


def _judge(task: FoldTask, logits: NDArray[np.float64]) -> dict[str, float | None]:
    """mAP, and the competition's metric where it needs no thresholds; nothing where no row validates."""
    if not task.rows.validation.size:
        return {}
    targets = task.table.truths[task.rows.validation]
    metrics = _epoch_metrics(task.config, task.table.labels)
    values = {metric.name: metric.function(targets, sigmoid(logits)).value for metric in metrics}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _epoch_metrics(config: Config, labels: Sequence[str]) -> list[Metric]:
    """mAP, then the competition's metric where it needs no thresholds; the last one chooses epochs."""
    metric = get_metric(config.competition.metric, labels, custom_functions=True)
    return [get_metric("map"), *([metric] if metric.takes == "probabilities" else [])]


def _save_epoch(task: FoldTask, training: Training) -> None:
    """Write the state after an epoch, its record, and its weights where they are the best so far."""
    best = task.config.train.select == "best"
    if best and kept_epoch(task.config, task.table.labels, training.records) == len(training.records):
        save_tensors(task.folder.best_weights, training.ema.module.state_dict(), {})
    training.save(task.folder)
    write_json_lines(task.folder.epochs, training.records)


def _keep_weights(task: FoldTask, training: Training) -> None:
    if task.config.train.select == "best":
        tensors, _ = load_tensors(task.folder.best_weights)
    else:
        tensors = training.ema.module.state_dict()
    facts = model_facts(task.config.model, task.config.images, task.table.labels, backbone_of(training.model))
    save_tensors(task.folder.weights, tensors, facts)
