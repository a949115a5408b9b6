"""Measures the costs of an arm on this machine by a short training on a few rows."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from pipeline.autopilot.schedule import Costs
from pipeline.competition.folds.rows import rows_of
from pipeline.competition.submission import submission_form
from pipeline.competition.test_set import read_test_set
from pipeline.events import EpochFinished, Event, ImageProgress, Listener, StepFinished, ignore
from pipeline.run.cv import run_fold
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan, few_rows

_EPOCHS = 2
_VALIDATION = 0.4  # of the seconds of a training step, where no epoch ends in time
_TEST = 1.5  # times the seconds of validation: test images are decoded, and a model is loaded


class _Watch:
    """A listener that adds the time since the last event to the kind of the event."""

    def __init__(self, listen: Listener) -> None:
        self._listen, self._last = listen, time.monotonic()
        self.images: dict[str, list[tuple[float, int, int]]] = defaultdict(list)  # seconds, images done, all
        self.steps: list[float] = []
        self.validations: list[float] = []

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        if isinstance(event, ImageProgress):
            self.images[event.doing].append((seconds, event.done, event.total))
        elif isinstance(event, StepFinished):
            self.steps.append(seconds)
        elif isinstance(event, EpochFinished):
            self.validations.append(seconds)
        else:
            self._listen(event)


def measure(plan: Plan, run: RunFolder, *, seconds: float, startup: float, listen: Listener) -> Costs:
    """The costs of a plan's training, from one of a few rows that takes about so many seconds at most.

    Args:
        plan: of all rows.
        run: the folder of the short training; it is begun anew.
        seconds: after these the training stops, and what it did not reach is supposed.
        startup: seconds that a new process takes to import everything.
        listen: gets notes.
    """
    train = plan.config.train
    table, folds = few_rows(plan.table, plan.folds, per_fold=2 * train.batch_size, seed=plan.config.folds.seed)
    short = plan.config.model_copy(update={"train": train.model_copy(update={"epochs": _EPOCHS, "seeds": 1})})
    watch, begun = _Watch(listen), time.monotonic()
    few = replace(plan, config=short, table=table, folds=folds, deadline=begun + seconds)
    run.begin(fresh=True)
    with run.in_use():
        run_fold(few, run, few.fold_numbers[0], watch)
    total = time.monotonic() - begun
    rows, few_of = rows_of(plan.folds, few.fold_numbers[0]), rows_of(few.folds, few.fold_numbers[0])
    factor = len(plan.table.ids) / len(table.ids)
    rates = {doing: (_rate(seen), seen[-1][2] * factor) for doing, seen in watch.images.items()}
    step = fmean(watch.steps[1:] or watch.steps or [seconds])
    training = step / min(train.batch_size * train.accumulate, len(few_of.train))
    validation = min(watch.validations) / len(few_of.validation) if watch.validations else _VALIDATION * training
    known = sum(each[0] for seen in watch.images.values() for each in seen[1:])
    known += (len(watch.steps) - 1) * step + sum(watch.validations)
    image = max([validation, *(rate for rate, _ in rates.values())])
    return Costs(
        epochs=train.epoch_count,
        images=float(sum(rate * count for rate, count in rates.values())),
        start=max(0.0, total - known) + (startup if train.parallel_folds > 1 else 0.0),
        epoch=float(training * len(rows.train) + validation * len(rows.validation)),
        predict=float(_TEST * image * _test_rows(plan) * len(plan.config.predict.tta) + 0.5),
    )


def _rate(seen: Sequence[tuple[float, int, int]]) -> float:
    """Seconds per image. The first event follows the building of the network, which is not counted if others follow."""
    seconds = sum(each[0] for each in seen[1:]) or seen[0][0]
    return seconds / max(1, seen[-1][1] - (seen[0][1] if len(seen) > 1 else 0))


def _test_rows(plan: Plan) -> int:
    config = plan.config
    form = submission_form(config.submission, config.competition, plan.table.labels)
    return len(
        read_test_set(
            config.competition, config.submission, form, images=None, train_ids=plan.table.ids, listen=ignore
        ).table.ids
    )
