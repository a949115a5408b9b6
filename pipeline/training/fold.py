"""Train a fold: build its objects from the config, run the loop epoch by epoch, save what it gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import interrupts, processes
from pipeline.config import Config
from pipeline.events import EpochFinished, Event, Fold, FoldNote, Listener, StepFinished
from pipeline.files import write_json_lines
from pipeline.images.geometry import image_form
from pipeline.images.readers import ImageSource
from pipeline.metrics.registry import Metric, get_metric
from pipeline.model.build import backbone_of
from pipeline.model.weights import load_tensors, model_facts, save_tensors
from pipeline.prediction.ensemble import sigmoid
from pipeline.prediction.out_of_fold import predict_rows
from pipeline.prediction.predict import Ensemble
from pipeline.prediction.tta import parse_views
from pipeline.seeds import stable_seed
from pipeline.training.build import build_training, on_maps
from pipeline.training.checkpoint import resume_training, save_training
from pipeline.training.distributed import from_first, in_parts, share_buffers
from pipeline.training.fold_task import FoldTask, steps_per_epoch
from pipeline.training.loop import EpochTotals, Training, train_epoch
from pipeline.training.step_callback import StepCallback, is_over


class ValidatedEpoch(NamedTuple):
    """A finished epoch of a fold."""

    fold: Fold
    epoch: int  # from 1
    logits: NDArray[np.float64]  # (V, K) of the averaged weights, in the order of the fold's validation rows


def train_fold(task: FoldTask, *, listen: Listener, deadline: float = math.inf) -> bool:
    """Train the models of a fold, or of the full fit, one for each of the seeds `train.seed`, `train.seed` + 1, …

    Finished models are kept; an unfinished one is resumed. `FoldFolder.seed_models` are their
    folders. The full fit, which has no validation rows, keeps its last epoch whatever `train.select` says.

    Args:
        task: the task of the first seed model.
        listen: receives each step and epoch; with several models, with the seed.
        deadline: on the clock of `time.monotonic`; the training stops after it, its state saved.

    Returns:
        Whether all of them are trained.

    Raises:
        PipelineError: as `train_model` does.
    """
    return all(
        train_seed_model(task, number, listen=listen, deadline=deadline) for number in range(task.config.train.seeds)
    )


def train_seed_model(task: FoldTask, number: int, *, listen: Listener, deadline: float = math.inf) -> bool:
    """Train one of the models of `train_fold`, counted from 0, unless it is finished; returns whether it is then."""
    train, folder = task.config.train, task.folder.seed_models(task.config.train)[number]
    if from_first(folder.weights.exists):
        return True
    seed = train.seed + number
    model = replace(task, config=_config_of(task, seed=seed), folder=folder)
    return train_model(model, listen=listen if train.seeds == 1 else _naming(listen, seed), deadline=deadline)


def train_model(
    task: FoldTask,
    *,
    listen: Listener,
    on_epoch: Callable[[ValidatedEpoch], None] = lambda _: None,
    deadline: float = math.inf,
) -> bool:
    """Train one network until `train.epochs`, from the last saved state if there is one.

    Several processes may call this together: each trains and validates its part, the first one writes. A finished
    training leaves in `task.folder`: `weights.safetensors` (the averaged weights of the kept epoch), `epochs.jsonl`,
    and `resume/` with the last state.

    Args:
        task: the training.
        listen: receives each step and epoch.
        on_epoch: called when an epoch is validated and saved; an error that it raises ends the training there.
        deadline: on the clock of `time.monotonic`; the training stops after it, its state saved.

    Returns:
        Whether it came to its end.

    Raises:
        TrainingError: the loss or the gradient is not finite.
        ImageError: an image cannot be read.
    """
    if is_over(deadline) or (task.map_cache is not None and task.maps is None):
        return False
    train, fold = task.config.train, task.rows.fold
    steps = steps_per_epoch(len(task.rows.train), train)
    training = build_training(
        task.config,
        fold=task.rows.seed_part,
        labels=task.table.labels,
        total_steps=steps * train.epoch_count,
        targets=task.table.targets[task.rows.train],
    )
    resume_training(task.folder.checkpoint, training)
    loader = task.open_loader()
    begun = len(training.records)
    for epoch in range(begun, train.epoch_count):
        if epoch > begun and is_over(deadline):
            return False  # the last epoch has saved its state
        loader.batches = task.batches(epoch)[training.totals.steps * train.accumulate :]
        backbone_of(training.model).hold(epoch < train.freeze_backbone_epochs)
        callback = StepCallback(task, training, epoch, steps=steps, listen=listen, deadline=deadline)
        with interrupts.deferred():  # a signal stops the training between two steps, where its state can be saved
            finished = train_epoch(
                loader,
                training,
                seed_of=partial(step_seed, train.seed, task.rows.seed_part),
                on_step=callback.step,
                note=lambda sentence: listen(FoldNote(fold, sentence)),
                name_of=lambda row: task.table.ids[row],
            )
        if not finished:
            return False
        logits = _finish_epoch(task, training, callback.facts())
        listen(EpochFinished(fold, training.records[-1]))
        on_epoch(ValidatedEpoch(fold, epoch + 1, logits))
    from_first(lambda: _keep_weights(task, training))
    return True


def _config_of(task: FoldTask, *, seed: int) -> Config:
    """The run's configuration with this seed; without validation rows, the last epoch is kept."""
    changed: dict[str, object] = {"seed": seed}
    if not task.rows.validation.size:
        changed["select"] = "last"
    return task.config.model_copy(update={"train": task.config.train.model_copy(update=changed)})


def _naming(listen: Listener, seed: int) -> Listener:
    """Add the seed to each event of a model."""

    def named(event: Event) -> None:
        listen(event._replace(seed=seed) if isinstance(event, StepFinished | EpochFinished | FoldNote) else event)

    return named


def _finish_epoch(task: FoldTask, training: Training, facts: Mapping[str, float]) -> NDArray[np.float64]:
    """Validate the epoch, add its record and save all; returns the logits of the validation rows."""
    logits = _validate(task, training)
    scores = from_first(lambda: _score_epoch(task, logits))
    epoch = len(training.records) + 1
    training.records.append({"epoch": epoch, "loss": training.totals.mean_loss, **facts, **scores})
    training.totals = EpochTotals()
    from_first(lambda: _save_epoch(task, training))
    return logits


def step_seed(seed: int, fold: int, step: int) -> int:
    """Seed of one optimizer step. Rank 0 draws the same numbers as a run in one process."""
    rank = processes.rank()
    return stable_seed(seed, fold, "step", step, *([rank] if rank else []))


def kept_epoch(config: Config, labels: Sequence[str], records: Sequence[Mapping[str, Any]]) -> int:
    """The epoch, from 1, whose weights are kept: the last, or with `select: best` the first best one."""
    if config.train.select == "last":
        return len(records)
    metric = _epoch_metrics(config, labels)[-1]
    sign = 1.0 if metric.greater_is_better else -1.0
    values = [-math.inf if record[metric.name] is None else sign * record[metric.name] for record in records]
    return values.index(max(values)) + 1


def _validate(task: FoldTask, training: Training) -> NDArray[np.float64]:
    """Logits (V, K) of the averaged weights for the validation rows."""
    share_buffers(training.ema.module)
    if not task.rows.validation.size:
        return np.empty((0, len(task.table.labels)))
    form = image_form(task.config.images)
    views = parse_views(["identity"], size=form.size)
    ensemble = Ensemble([training.ema.module], training.normalizer, views, form, "probability")
    return predict_validation(task, ensemble)


def predict_validation(task: FoldTask, ensemble: Ensemble) -> NDArray[np.float64]:
    """Logits (V, K) for the validation rows, from stored maps where there are some and identity is the only view.

    The models of `ensemble` lose their backbones then.
    """
    source: ImageSource = task.sources.evaluation
    if [view.name for view in ensemble.views] == ["identity"] and task.maps is not None:
        source = task.maps.plain
        ensemble = on_maps(ensemble, source)
    rows = task.rows.validation
    return in_parts(lambda own: predict_rows(ensemble, task.table, own, source, task.runtime), rows)


def _score_epoch(task: FoldTask, logits: NDArray[np.float64]) -> dict[str, float | None]:
    """mAP, and the competition's metric where it needs no thresholds; nothing where no row validates."""
    if not task.rows.validation.size:
        return {}
    metrics = _epoch_metrics(task.config, task.table.labels)
    values = {metric.name: metric.function(task.validation_truths, sigmoid(logits)).value for metric in metrics}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _epoch_metrics(config: Config, labels: Sequence[str]) -> list[Metric]:
    """mAP, then the competition's metric where it needs no thresholds; the last one chooses epochs."""
    metric = get_metric(config.competition.metric, labels, custom_functions=True)
    return [get_metric("map"), *([metric] if metric.takes == "probabilities" else [])]


def _save_epoch(task: FoldTask, training: Training) -> None:
    """Write the state after an epoch, all records, and its weights where they are the best so far."""
    best = task.config.train.select == "best"
    if best and kept_epoch(task.config, task.table.labels, training.records) == len(training.records):
        save_tensors(task.folder.best_weights, training.ema.module.state_dict(), {})
    save_training(task.folder.checkpoint, training)
    write_json_lines(task.folder.epochs, training.records)


def _keep_weights(task: FoldTask, training: Training) -> None:
    if task.config.train.select == "best":
        tensors, _ = load_tensors(task.folder.best_weights)
    else:
        tensors = training.ema.module.state_dict()
    facts = model_facts(task.config.model, task.config.images, task.table.labels, backbone_of(training.model))
    frozen = {} if task.maps is None else task.maps.backbone
    save_tensors(task.folder.weights, {**frozen, **tensors}, facts)
