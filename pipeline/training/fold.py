"""Train one fold: build its objects from the config, run the loop epoch by epoch, keep what it gives."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import processes
from pipeline.competition.table import TrainTable
from pipeline.config import Config
from pipeline.evaluation.metrics import Metric, get_metric
from pipeline.files import write_json_lines
from pipeline.images.dataset import TrainImages, epoch_batches, train_loader
from pipeline.images.sources import ImageSource, ImageSources
from pipeline.inference.ensemble import sigmoid
from pipeline.inference.out_of_fold import FoldRows, image_form, predict_rows
from pipeline.inference.predict import Ensemble
from pipeline.inference.views import parse_views
from pipeline.model.weights import load_tensors, model_facts, save_tensors
from pipeline.runs import FoldFolder
from pipeline.seeds import stable_seed
from pipeline.training.engine import EpochSums, Step, train_epoch
from pipeline.training.inputs import train_augmentation
from pipeline.training.mixing import BatchMixer
from pipeline.training.progress import EpochDone, Listener, Remark, StepDone
from pipeline.training.setup import Training, build_loss, build_training


class ValidatedEpoch(NamedTuple):
    """A finished epoch of a fold, for whoever decides whether it is worth going on."""

    fold: int
    epoch: int  # from 1
    logits: NDArray[np.float64]  # (V, K) of the averaged weights, in the order of the fold's validation rows


def _go_on(_: ValidatedEpoch) -> None:
    pass


def train_fold(
    config: Config,
    table: TrainTable,
    rows: FoldRows,
    *,
    sources: ImageSources,
    folder: FoldFolder,
    workers: int,
    listen: Listener,
    on_epoch: Callable[[ValidatedEpoch], None] = _go_on,
    deadline: float = math.inf,
) -> bool:
    """Train until `train.epochs`, from the last saved state if there is one, be it in the middle of an epoch.

    Several processes may call this together: each trains and validates its part, the first one writes.

    What stands in `folder` afterwards: `weights.safetensors` (averaged weights of the kept epoch),
    `epochs.jsonl`, and `resume/` with the last state.

    Args:
        config: the run's configuration.
        table: all training rows.
        rows: which of them train and which validate.
        sources: the images of the table.
        folder: where the fold's files go.
        workers: processes that load images; 0 loads in this one.
        listen: told of each step and epoch.
        on_epoch: called when an epoch is validated and saved; what it raises ends the training there.
        deadline: on the clock of `time.monotonic`; the training stops after it, its state saved.

    Returns:
        Whether it came to its end.

    Raises:
        TrainingError: the loss or the gradient is not finite.
        ImageError: an image cannot be read.
    """
    if _is_over(deadline):
        return False
    train = config.train
    images = TrainImages(
        sources.train,
        ids=table.ids,
        targets=table.targets,
        augmentation=train_augmentation(config),
        seed=train.seed,
    )

    def batches_of(epoch: int) -> list[Sequence[tuple[int, int]]]:
        whole = epoch_batches(rows.train, table.ids, epoch=epoch, seed=train.seed, batch_size=train.batch_size)
        return [processes.part_of(batch) for batch in whole]

    steps_per_epoch = math.ceil(len(batches_of(0)) / train.accumulate)
    total_steps = steps_per_epoch * train.epochs
    training = build_training(config, fold=rows.fold, labels=table.labels, total_steps=total_steps)
    training.resume(folder)
    loss = build_loss(config.loss, labels=table.labels)
    mixer = BatchMixer(**config.augment.mix.model_dump())
    pin = training.accelerator.device.type == "cuda"
    loader = train_loader(images, batches_of(0), workers=workers, pin_memory=pin)
    begun = len(training.records)
    for epoch in range(begun, train.epochs):
        if epoch > begun and _is_over(deadline):
            return False  # what the last epoch saved stands
        loader.batches = batches_of(epoch)[training.sums.steps * train.accumulate :]
        training.freeze_backbone(epoch < train.freeze_backbone_epochs)
        watch = _Watch(
            rows.fold, epoch, training, folder, config, steps=steps_per_epoch, listen=listen, deadline=deadline
        )
        finished = train_epoch(
            loader,
            model=training.prepared,
            ema=training.ema,
            normalizer=training.normalizer,
            loss_function=loss,
            optimizer=training.optimizer,
            schedule=training.schedule,
            accelerator=training.accelerator,
            accumulate=train.accumulate,
            clip_grad=train.clip_grad,
            sums=training.sums,
            seed_of=partial(step_seed, train.seed, rows.fold),
            on_step=watch.step,
            say=lambda sentence: listen(Remark(rows.fold, sentence)),
            mixer=mixer,
            name_of=lambda row: table.ids[row],
        )
        if not finished:
            return False
        facts = watch.facts()
        logits = _validate(config, table, rows, training, sources.evaluation, workers=workers)
        scores = processes.from_first(partial(_judge, config, table, rows, logits))
        training.records.append({"epoch": epoch + 1, "loss": training.sums.mean_loss, **facts, **scores})
        training.sums = EpochSums()
        processes.from_first(lambda: _save_epoch(config, table, training, folder))
        listen(EpochDone(rows.fold, training.records[-1]))
        on_epoch(ValidatedEpoch(rows.fold, epoch + 1, logits))
    processes.from_first(lambda: _keep_weights(config, table, training, folder))
    return True


def _is_over(deadline: float) -> bool:
    """Whether it is over for the first process, and so for all of them."""
    return math.isfinite(deadline) and processes.first_says(time.monotonic() > deadline)


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


class _Watch:
    """After each step: tells the listener, saves the state when it is due, and stops when the time is used."""

    def __init__(
        self,
        fold: int,
        epoch: int,
        training: Training,
        folder: FoldFolder,
        config: Config,
        *,
        steps: int,
        listen: Listener,
        deadline: float,
    ) -> None:
        self._fold, self._epoch, self._steps, self._epochs = fold, epoch, steps, config.train.epochs
        self._training, self._folder, self._listen, self._deadline = training, folder, listen, deadline
        self._every = 60 * config.train.checkpoint_minutes
        self._lr = 0.0
        # time.monotonic throughout: a clock that is set anew changes nothing
        self._last = self._saved = time.monotonic()

    def step(self, step: Step) -> bool:
        """Take note of a step; False if training must stop here, its state saved."""
        sums = self._training.sums
        now = time.monotonic()
        sums.seconds, self._last = sums.seconds + now - self._last, now
        self._lr = step.lr
        self._listen(
            StepDone(
                fold=self._fold,
                epoch=self._epoch + 1,
                epochs=self._epochs,
                step=self._epoch * self._steps + sums.steps,
                steps=self._epochs * self._steps,
                loss=step.loss,
                lr=step.lr,
                images_per_second=self._rate(),
            )
        )
        late = _is_over(self._deadline)
        if sums.steps < self._steps and (late or now - self._saved > self._every):
            if processes.is_first():
                self._training.save(self._folder)
            self._saved = time.monotonic()
        return not late or sums.steps == self._steps  # a whole epoch is validated before it stops

    def facts(self) -> dict[str, float]:
        sums = self._training.sums
        skipped = {"skipped_steps": sums.skipped} if self._training.accelerator.scaler is not None else {}
        return {
            "lr": self._lr,
            "images_per_second": round(self._rate(), 1),
            "seconds": round(sums.seconds, 2),
            **skipped,
        }

    def _rate(self) -> float:
        sums = self._training.sums
        return sums.images / max(sums.seconds, 1e-9)


def _validate(
    config: Config,
    table: TrainTable,
    rows: FoldRows,
    training: Training,
    source: ImageSource,
    *,
    workers: int,
) -> NDArray[np.float64]:
    """Logits (V, K) of the averaged weights for the validation rows."""
    processes.share_buffers(training.ema.module)  # which a full memory may have left apart
    if not rows.validation.size:
        return np.empty((0, len(table.labels)))
    views = parse_views(["identity"], size=config.images.height_width)
    ensemble = Ensemble([training.ema.module], training.normalizer, views, image_form(config.images), "probability")
    device = training.accelerator.device
    return predict_rows(config, ensemble, table, rows.validation, source, workers=workers, device=device)


def _judge(config: Config, table: TrainTable, rows: FoldRows, logits: NDArray[np.float64]) -> dict[str, float | None]:
    """mAP, and the competition's metric where it needs no thresholds; nothing where no row validates."""
    if not rows.validation.size:
        return {}
    targets = table.truths[rows.validation]
    metrics = _epoch_metrics(config, table.labels)
    values = {metric.name: metric.function(targets, sigmoid(logits)).value for metric in metrics}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _epoch_metrics(config: Config, labels: Sequence[str]) -> list[Metric]:
    """mAP, then the competition's metric where it needs no thresholds; the last one chooses epochs."""
    metric = get_metric(config.competition.metric, labels, own_functions=True)
    return [get_metric("map"), *([metric] if metric.takes == "probabilities" else [])]


def _save_epoch(config: Config, table: TrainTable, training: Training, folder: FoldFolder) -> None:
    """Write the state after an epoch, its record, and its weights where they are the best so far."""
    if config.train.select == "best" and kept_epoch(config, table.labels, training.records) == len(training.records):
        save_tensors(folder.best_weights, training.ema.module.state_dict(), {})
    training.save(folder)
    write_json_lines(folder.epochs, training.records)


def _keep_weights(config: Config, table: TrainTable, training: Training, folder: FoldFolder) -> None:
    if config.train.select == "best":
        tensors, _ = load_tensors(folder.best_weights)
    else:
        tensors = training.ema.module.state_dict()
    save_tensors(folder.weights, tensors, model_facts(config.model, config.images, table.labels))
