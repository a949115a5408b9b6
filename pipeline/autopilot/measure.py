"""Measures the costs of an arm on this machine by a short training on a few rows."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from pipeline.autopilot.schedule import Costs
from pipeline.competition.folds.rows import rows_of
from pipeline.competition.submission import submission_form
from pipeline.competition.test_set import read_test_set
from pipeline.events import Event, ImageProgress, StepFinished, ignore
from pipeline.run.cv import run_cv
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan, few_rows

_STEPS = 5  # of each fold, after the first one of an epoch, which waits for the loader
_ROWS = 2  # batches of each fold
_FORWARD = 0.4  # of the seconds of an image in training: it is only predicted
_MAPS = "computing feature maps"


class _EnoughError(Exception):
    """Ends the training: all is measured."""


class _Watch:
    """A listener that notes when images are read and how fast folds train; it ends the training."""

    def __init__(self, folds: Sequence[int], seconds: float) -> None:
        self._begun = self._last = time.monotonic()
        self._seconds, self._epoch = seconds, dict.fromkeys(folds, 0.0)
        self.start = 0.0  # seconds until the first step
        self.steps: dict[int, list[float]] = {fold: [] for fold in folds}  # seconds per image, all folds at work
        self.images: dict[str, list[tuple[float, int, int]]] = {}  # the time, images done, all

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, ImageProgress):
            self.images.setdefault(event.doing, [(self._last, 0, event.total)]).append((now, event.done, event.total))
        elif isinstance(event, StepFinished) and isinstance(event.fold, int):
            self.start = self.start or now - self._begun
            place = (event.step - 1) % (event.steps // event.epochs) + 1
            spent = place / event.images_per_second  # in the epoch, per image of a batch
            if place > 1 and all(self._epoch.values()):
                self.steps[event.fold].append(spent - self._epoch[event.fold])
            self._epoch[event.fold] = spent
            fewest = min(map(len, self.steps.values()))
            if fewest >= _STEPS or (fewest and now - self._begun > self._seconds):
                raise _EnoughError
        self._last = now

    def reading(self) -> dict[str, tuple[float, int]]:
        """The seconds per image of each kind of reading, and its number of images."""
        found = {}
        for doing, seen in self.images.items():
            some = seen[1:] if len(seen) > 2 else seen  # networks are built before the first images are counted
            found[doing] = (some[-1][0] - some[0][0]) / max(1, some[-1][1] - some[0][1]), seen[-1][2]
        return found


def measure(plan: Plan, run: RunFolder, *, seconds: float) -> Costs:
    """The costs of a plan's training, from one of a few rows.

    Args:
        plan: of all rows.
        run: the folder of the short training; it is begun anew.
        seconds: after these it ends with the next step of each fold.
    """
    train, features = plan.config.train, plan.config.features
    table, folds = few_rows(plan.table, plan.folds, per_fold=_ROWS * train.batch_size, seed=plan.config.folds.seed)
    first = plan.fold_numbers[: train.parallel_folds]
    watch = _Watch(first, seconds)
    with tempfile.TemporaryDirectory() as cache, contextlib.suppress(_EnoughError):
        update = {
            "train": train.model_copy(update={"epochs": 100 * _STEPS, "seeds": 1}),
            "features": features.model_copy(update={"copies": 1}),
            # maps of an earlier measurement would hide the time that they take
            **({"images": plan.config.images.model_copy(update={"cache": cache})} if train.frozen_backbone else {}),
        }
        few = replace(plan, config=plan.config.model_copy(update=update), table=table, folds=folds)
        run_cv(few, run, folds=first, fresh=True, listen=watch)
    rows, reading = rows_of(plan.folds, plan.fold_numbers[0]), watch.reading()
    image = max(median(steps) for steps in watch.steps.values())
    factor = len(plan.table.ids) / len(table.ids)
    copies = {_MAPS: (features.copies + 1) / 2}
    validation = _FORWARD * image * len(rows.validation)
    start = max(0.0, watch.start - sum(rate * count for rate, count in reading.values()))
    slowest = max([_FORWARD * image, *(rate for rate, _ in reading.values())])
    return Costs(
        epochs=train.epoch_count,
        images=float(sum(rate * count * factor * copies.get(doing, 1) for doing, (rate, count) in reading.items())),
        start=train.seeds * (start + validation) + 1.0,  # each model predicts its fold once more; scores
        epoch=train.seeds * (image * len(rows.train) + validation),
        predict=train.seeds * slowest * _test_rows(plan) * len(plan.config.predict.tta) + 0.5,
    )


def _test_rows(plan: Plan) -> int:
    config = plan.config
    form = submission_form(config.submission, config.competition, plan.table.labels)
    found = read_test_set(
        config.competition, config.submission, form, images=None, train_ids=plan.table.ids, listen=ignore
    )
    return len(found.table.ids)
