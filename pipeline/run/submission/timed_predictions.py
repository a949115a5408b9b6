"""Predict the test images within `predict.time_budget`: one model first, then as many models and views as fit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from pipeline.competition.test_set import TestTable
from pipeline.config import seconds_of
from pipeline.device import explained_memory_errors
from pipeline.errors import listing
from pipeline.events import Listener
from pipeline.images.dataset import EvalBatch
from pipeline.images.geometry import ImageForm
from pipeline.prediction.ensemble import combine_logits, sigmoid
from pipeline.prediction.predict import predict
from pipeline.run.records import Scores
from pipeline.run.submission.test_predictions import (
    TestPredictions,
    fill_broken,
    in_order_of_first,
    read_images,
    stored_predictions,
)
from pipeline.run.trained_run import TrainedRun
from pipeline.training.build_prediction import build_runtime, load_ensemble

_SHARE = 0.25  # of the free memory for decoded images


class _Pass(NamedTuple):
    """One model predicts one view of all test images; `run`, `view` and `model` are places in lists."""

    run: int
    view: int
    model: int


class _OutOfTimeError(Exception):
    """The budget ended inside a pass."""


def plan_passes(runs: Sequence[TrainedRun], views: Sequence[Sequence[str]]) -> list[_Pass]:
    """All passes: the first view of every model, then the second, ..; in each the models of the best fold scores first.

    The score of a fold is cross-fitted. Models without one, such as those of a full fit, are the last.

    Args:
        runs: of the same metric.
        views: names for each run.
    """
    passes = [
        _Pass(place, view, model)
        for place, run in enumerate(runs)
        for view in range(len(views[place]))
        for model in range(len(run.models))
    ]
    worths = [_worths(run) for run in runs]
    return sorted(passes, key=lambda each: (each.view, -worths[each.run][each.model]))


def _worths(run: TrainedRun) -> list[float]:
    """The score of each model's fold, larger is better; -inf where there is none."""
    scores = Scores.load(run.folder.scores) if run.folder.scores.exists() else None
    by_fold: dict[int, float] = {}
    if scores is not None and len(scores.folds) == len(scores.cross_fitted.folds):
        sign = 1 if scores.greater_is_better else -1
        pairs = zip(scores.folds, scores.cross_fitted.folds, strict=True)
        by_fold = {fold: sign * score for fold, score in pairs if score is not None}
    folds = [fold for fold in run.folds for _ in range(run.config.train.seeds)]
    worths = [by_fold.get(fold, -math.inf) for fold in folds]
    return worths + [-math.inf] * (len(run.models) - len(worths))


def timed_predictions(
    runs: Sequence[TrainedRun],
    test: TestTable,
    *,
    views: Sequence[str] | None,
    listen: Listener,
    on_image: Callable[[int, int], None] | None,
) -> Iterator[TestPredictions]:
    """Yield better and better predictions of all test images: one after each pass that ends within the budget.

    The first pass is always finished. A further one begins if the last one of its run would fit into the rest of the
    budget, together with the time that the caller took for the last result; it is given up at the end of the budget.
    Decoded images are kept for the next pass if they need less than a quarter of the free memory.

    Args, Raises: as `predict_test`.
    """
    budget = runs[0].config.predict.time_budget
    assert budget is not None
    deadline = time.monotonic() + seconds_of(budget)
    names = [list(views or run.config.predict.tta) for run in runs]
    passes = plan_passes(runs, names)
    images, stored = _Images(runs[0], test, listen), stored_predictions(runs, test.ids, views)
    found: dict[_Pass, NDArray[np.float32]] = {}
    seconds: dict[int, float] = {}  # of the last pass of each run
    writing = 0.0

    def count(done: int) -> None:
        images.done += done
        if found and time.monotonic() > deadline:
            raise _OutOfTimeError
        if on_image is not None:
            on_image(images.done, len(test.ids) * len(passes))

    for each in passes:
        begin = time.monotonic()
        expected = seconds.get(each.run, max(seconds.values(), default=0.0)) + writing
        if found and begin + expected > deadline:
            continue
        try:
            found[each] = images.predict(runs[each.run], each, names[each.run][each.view], count)
        except _OutOfTimeError:
            break
        seconds[each.run] = time.monotonic() - begin
        probabilities = fill_broken(_mean(runs, found, stored), images.problems, runs)
        used = [f"{runs[one.run].models[one.model].path} {names[one.run][one.view]}" for one in found]
        note = f"predict.time_budget={budget}: {len(found)} of {len(passes)} predictions are averaged: "
        begin = time.monotonic()
        yield TestPredictions(probabilities, images.problems, len(found), (note + listing(used, 20),))
        writing = time.monotonic() - begin


class _Images:
    """The test images of several passes, and their problems by row; `done` counts images over all passes."""

    def __init__(self, first: TrainedRun, test: TestTable, listen: Listener) -> None:
        self._test, self._config, self._runtime = test, first.config, build_runtime(first.config, listen=listen)
        self._kept: dict[ImageForm, list[EvalBatch]] = {}
        self.problems: dict[int, str] = {}
        self.done = 0

    def predict(self, run: TrainedRun, each: _Pass, view: str, on_batch: Callable[[int], None]) -> NDArray[np.float32]:
        """The logits (N, K) of one pass."""
        runtime = self._runtime
        weights = run.models[each.model].network(run.config.predict.engine)
        with explained_memory_errors("lower predict.batch_size"):
            ensemble = load_ensemble(run.config, [weights], labels=run.labels, device=runtime.device, tta=[view])
            batches = self._read(ensemble.forms[0])
            (logits,) = predict(
                [ensemble], batches, device=runtime.device, precision=runtime.precision, on_batch=on_batch
            )
        return logits.astype(np.float32)

    def _read(self, form: ImageForm) -> Iterator[EvalBatch]:
        if form in self._kept:
            yield from self._kept[form]
            return
        fits = len(self._test.ids) * math.prod(form.shape) < _SHARE * psutil.virtual_memory().available
        loaded = []
        for batch in read_images(self._test, [form], self._config, self._runtime, self.problems):
            if fits:
                loaded.append(batch)
            yield batch
        if fits:
            self._kept[form] = loaded


def _mean(
    runs: Sequence[TrainedRun], found: dict[_Pass, NDArray[np.float32]], stored: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """The probabilities (N, K) by the passes so far: averaged in each run by its rule, then over runs and blends."""
    means = list(stored)
    for place, run in enumerate(runs):
        logits = [found[each] for each in sorted(found) if each.run == place]
        if logits:
            combined = combine_logits(np.stack(logits), average=run.config.predict.average)
            means.append(sigmoid(combined)[:, in_order_of_first(runs, run)])
    return np.asarray(np.mean(means, axis=0))
