"""Coordinate ascent over thresholds: the labels' thresholds move to their best values in order, until none moves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.metrics.counts import Counts, Unit, count
from pipeline.metrics.registry import Criterion
from pipeline.metrics.targets import Bits, Floats, Ints
from pipeline.thresholds.fitting.filled_rows import FilledLines, only_fills_empty
from pipeline.thresholds.fitting.line_search import ABOVE_ONE, EQUALLY_GOOD, improved_threshold, plateaus
from pipeline.thresholds.threshold_problem import ThresholdProblem

PASSES = 10
MOST_CANDIDATES = 64  # thresholds tried in one search if each takes an evaluation of the metric


def ascend(problem: ThresholdProblem, start: Floats) -> Floats:
    """Thresholds (K,) that no move of a single label's threshold improves, or those after ten passes.

    Each move is a line search. It is exact if the metric has a criterion and the only row rule is that for empty
    rows: it compares all sets of cells that the label's threshold can decide. Otherwise it evaluates the metric, at
    all these sets if the label has at most 64 distinct scores, else at 64 quantiles of them and then at up to 64
    scores around the best. The threshold of a label without a known positive stays.

    The value is never below that of `start`. It is a local optimum: no two thresholds move together.
    """
    lines = _lines(problem, start)
    labels = np.flatnonzero(problem.positives)
    for _ in range(PASSES):
        moved = [lines.improve(int(label)) for label in labels]
        if not any(moved):
            break
    return lines.thresholds


def _lines(problem: ThresholdProblem, start: Floats) -> _CountLines | FilledLines | _ValueLines:
    """An exact line search if there is one for the problem, else the one by values."""
    if problem.metric.criterion is not None and problem.rules.trivial:
        return _CountLines(problem, start)
    if problem.metric.criterion is not None and only_fills_empty(problem.rules):
        filled = FilledLines(problem, start)
        if filled.matches_metric():
            return filled
    return _ValueLines(problem, start)


def best_shared(problem: ThresholdProblem) -> float:
    """The best threshold for all labels together, found by evaluating the metric (see `ascend`)."""

    def value(threshold: float) -> float:
        return problem.value(np.full(problem.labels, threshold))

    return _search(candidate_thresholds(problem.probabilities[problem.known]), value)[0]


def candidate_thresholds(scores: Floats) -> Floats:
    """One threshold for each set of scores (C,) that a threshold can decide, ascending."""
    distinct = np.unique(scores)
    if distinct.size == 0:
        return np.array([0.5])
    between = (distinct[1:] + distinct[:-1]) / 2
    between = np.where(between > distinct[:-1], between, distinct[1:])  # where no number lies between them
    above = (distinct[-1] + 1.0) / 2 if distinct[-1] < 1.0 else ABOVE_ONE
    return np.concatenate([[distinct[0] / 2], between, [max(above, np.nextafter(distinct[-1], 2.0))]])


class _CountLines:
    """Line searches by counts: a label is taken out of the counts of the rows or the table, then swept."""

    def __init__(self, problem: ThresholdProblem, start: Floats) -> None:
        assert problem.metric.criterion is not None
        self.thresholds = start.copy()
        self._problem, self._criterion = problem, problem.metric.criterion
        self._sign = 1.0 if problem.metric.greater_is_better else -1.0
        self._decisions: Bits = ((problem.probabilities >= start) & problem.known).astype(np.uint8)
        unit: Unit = "table" if self._criterion.unit == "table" else "row"
        self._counts = count(problem.bits, self._decisions, unit, problem.known)

    def improve(self, label: int) -> bool:
        """Moves one label's threshold if that improves the value; returns whether it moved."""
        known = np.flatnonzero(self._problem.known[:, label])
        rows = known[np.argsort(-self._problem.probabilities[known, label])]
        scores, now = self._problem.probabilities[rows, label], float(self.thresholds[label])
        threshold = improved_threshold(scores, self._sign * self._values(label, rows), now=now)
        if threshold is not None:
            self._move(label, threshold)
        return threshold is not None

    def _values(self, label: int, rows: Ints) -> Floats:
        """The metric if the label is decided for the first 0, 1, ... of `rows`, (len(rows) + 1,)."""
        bits = self._problem.bits[rows, label].astype(np.int64)
        decided = self._decisions[:, label]
        hits = decided & self._problem.bits[:, label]
        if self._criterion.unit == "table":
            true_positives = self._counts.true_positives - hits.sum() + np.append(0, np.cumsum(bits))
            predicted = self._counts.predicted - decided.sum() + np.arange(rows.size + 1)
            return self._criterion.value(self._counts._replace(true_positives=true_positives, predicted=predicted))
        without = self._counts._replace(
            true_positives=self._counts.true_positives - hits, predicted=self._counts.predicted - decided
        )
        return _mean_of_rows(self._criterion, without, rows, bits)

    def _move(self, label: int, threshold: float) -> None:
        problem, old = self._problem, self._decisions[:, label].astype(np.int64)
        new = (problem.probabilities[:, label] >= threshold) & problem.known[:, label]
        change = new.astype(np.int64) - old
        hits = change * problem.bits[:, label]
        if self._criterion.unit == "table":
            change, hits = change.sum(), hits.sum()
        self._counts = self._counts._replace(
            true_positives=self._counts.true_positives + hits, predicted=self._counts.predicted + change
        )
        self._decisions[:, label] = new
        self.thresholds[label] = threshold


def _mean_of_rows(criterion: Criterion, without: Counts, rows: Ints, bits: Ints) -> Floats:
    """Mean over the rows with a known cell, if one cell is decided in the first 0, 1, ... of `rows`."""
    counted = np.asarray(without.size) > 0
    before = criterion.value(without)
    decided = Counts(
        true_positives=without.true_positives[rows] + bits,
        predicted=without.predicted[rows] + 1,
        positives=without.positives[rows],
        size=np.asarray(without.size)[rows],
    )
    changes = criterion.value(decided) - before[rows]
    sums = np.append(0.0, np.cumsum(changes)) + before[counted].sum()
    return np.asarray(sums / max(1, int(np.count_nonzero(counted))))


class _ValueLines:
    """Line searches by evaluations of the metric after all row rules."""

    def __init__(self, problem: ThresholdProblem, start: Floats) -> None:
        self.thresholds = start.copy()
        self._problem = problem
        self._value = problem.value(start)

    def improve(self, label: int) -> bool:
        """Moves one label's threshold if that improves the value; returns whether it moved."""
        problem = self._problem

        def value(threshold: float) -> float:
            moved = self.thresholds.copy()
            moved[label] = threshold
            return problem.value(moved)

        candidates = candidate_thresholds(problem.probabilities[problem.known[:, label], label])
        threshold, best = _search(candidates, value)
        if not best > self._value + EQUALLY_GOOD:
            return False
        self.thresholds[label], self._value = threshold, best
        return True


def _search(candidates: Floats, value: Callable[[float], float]) -> tuple[float, float]:
    """The best candidate and its value; of equally good ones the middle of the longest run."""
    step = max(1, -(-candidates.size // MOST_CANDIDATES))
    coarse = candidates[::step] if step > 1 else candidates
    threshold, best = _best_of(coarse, value)
    if step == 1:
        return threshold, best
    place = int(np.searchsorted(candidates, threshold))
    around = candidates[max(0, place - step + 1) : place + step]
    finer = _best_of(around[:: max(1, -(-around.size // MOST_CANDIDATES))], value)
    return finer if finer[1] > best + EQUALLY_GOOD else (threshold, best)


def _best_of(candidates: Floats, value: Callable[[float], float]) -> tuple[float, float]:
    values = np.array([value(float(candidate)) for candidate in candidates])
    first, last = plateaus(values)
    longest = int(np.argmax(last - first))
    middle = (int(first[longest]) + int(last[longest]) + 1) // 2
    return float(candidates[middle]), float(values[middle])
