"""Exact line search for a label's threshold when an empty row falls back to one label."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.counts import Counts
from pipeline.metrics.targets import Bits, Floats, Ints, take_rows
from pipeline.thresholds.fitting.line_search import improved_threshold
from pipeline.thresholds.row_rules import RowRules
from pipeline.thresholds.threshold_problem import ThresholdProblem


def only_fills_empty(rules: RowRules) -> bool:
    """Whether the only rule is that an empty row falls back to a label."""
    return rules.empty != "none" and rules == RowRules(rules.empty)


class _Line(NamedTuple):
    """Counts (N,) of each row without a label, and what the decision for the label adds to them."""

    label: int
    rows: Ints  # (R,) rows whose decisions the label can change, by descending probability
    falls_back: Bits  # 1 where no other label is decided, so that without this one the row falls back
    true_positives: Ints
    predicted: Ints  # in known cells
    added_true_positives: Ints
    added_predicted: Ints


class FilledLines:
    """Line searches by counts for `only_fills_empty` rules and any criterion; exact.

    The fallback label of a row does not depend on the thresholds. So the decision for a label joins the others
    that are decided in the row, or, where none is, replaces the fallback.
    """

    def __init__(self, problem: ThresholdProblem, start: Floats) -> None:
        assert problem.metric.criterion is not None
        self.thresholds = start.copy()
        self._problem, self._criterion = problem, problem.metric.criterion
        self._sign = 1.0 if problem.metric.greater_is_better else -1.0
        rows, empty = np.arange(len(problem.bits)), problem.rules.empty
        self._fallback = problem.probabilities.argmax(axis=1) if empty == "argmax" else np.full(rows.size, empty)
        self._fallback_hits = problem.bits[rows, self._fallback].astype(np.int64)
        self._fallback_known = problem.known[rows, self._fallback].astype(np.int64)
        self._decided: Bits = (problem.probabilities >= start).view(np.uint8)
        self._decided_labels = self._decided.sum(axis=1, dtype=np.int64)
        filled = self._filled(rows)
        hits, predicted = filled & problem.bits, filled & problem.known
        self._row_hits, self._row_predicted = (table.sum(axis=1, dtype=np.int64) for table in (hits, predicted))
        self._label_hits, self._label_predicted = (table.sum(axis=0, dtype=np.int64) for table in (hits, predicted))
        self._positives = [problem.bits.sum(axis=axis, dtype=np.int64) for axis in (0, 1)]
        self._size = [problem.known.sum(axis=axis, dtype=np.int64) for axis in (0, 1)]
        nothing = np.zeros_like(self._size[0])
        self._in_mean = self._criterion.defined(Counts(nothing, nothing, self._positives[0], self._size[0]))

    def matches_metric(self) -> bool:
        """Whether counts give the metric's own value; they do not where its mean has weights of its own."""
        line = self._line(0)
        now = np.count_nonzero(self._problem.probabilities[line.rows, 0] >= self.thresholds[0])
        return bool(np.isclose(self._values(line)[now], self._problem.value(self.thresholds), rtol=1e-9, atol=1e-12))

    def improve(self, label: int) -> bool:
        """Moves one label's threshold if that improves the value; returns whether it moved."""
        line = self._line(label)
        scores, now = self._problem.probabilities[line.rows, label], float(self.thresholds[label])
        threshold = improved_threshold(scores, self._values(line), now=now)
        if threshold is not None:
            self._move(label, threshold)
        return threshold is not None

    def _line(self, label: int) -> _Line:
        problem, decided = self._problem, self._decided[:, label].astype(np.int64)
        bits, known = problem.bits[:, label].astype(np.int64), problem.known[:, label].astype(np.int64)
        falls_back = self._decided_labels == decided
        rows = np.flatnonzero((known > 0) | falls_back)
        return _Line(
            label,
            rows[np.argsort(-problem.probabilities[rows, label])],
            falls_back.view(np.uint8),
            true_positives=np.where(falls_back, self._fallback_hits, self._row_hits - decided * bits),
            predicted=np.where(falls_back, self._fallback_known, self._row_predicted - decided * known),
            added_true_positives=np.where(falls_back, bits - self._fallback_hits, bits),
            added_predicted=np.where(falls_back, known - self._fallback_known, known),
        )

    def _values(self, line: _Line) -> Floats:
        """The metric to maximise, if the label is decided for the first 0, 1, ... of the line's rows, (R + 1,)."""
        units = {"row": self._mean_of_rows, "table": self._of_table, "label": self._mean_of_labels}
        return self._sign * units[self._criterion.unit](line)

    def _of_table(self, line: _Line) -> Floats:
        true_positives = line.true_positives.sum() + _partial_sums(line.added_true_positives[line.rows])
        predicted = line.predicted.sum() + _partial_sums(line.added_predicted[line.rows])
        return self._criterion.value(Counts(true_positives, predicted, self._positives[0].sum(), self._size[0].sum()))

    def _mean_of_rows(self, line: _Line) -> Floats:
        counted, value = self._size[1] > 0, self._criterion.value
        without = Counts(line.true_positives, line.predicted, self._positives[1], self._size[1])
        decided = without._replace(
            true_positives=line.true_positives + line.added_true_positives,
            predicted=line.predicted + line.added_predicted,
        )
        before = value(without)
        changes = np.where(counted, value(decided) - before, 0.0)[line.rows]
        return np.asarray(before[counted].sum() + _partial_sums(changes)) / max(1, int(np.count_nonzero(counted)))

    def _mean_of_labels(self, line: _Line) -> Floats:
        """Each row decided adds to the label's counts and, if it fell back to another label, takes from that one's."""
        problem, label, rows = self._problem, line.label, line.rows
        decided, fallback = self._decided[:, label] > 0, self._fallback
        hits, predicted = self._label_hits.copy(), self._label_predicted.copy()
        hits[label] -= problem.bits[decided, label].sum(dtype=np.int64)
        predicted[label] -= problem.known[decided, label].sum(dtype=np.int64)
        back = decided & (line.falls_back > 0)  # rows that fall back once the label is taken out
        hits += np.bincount(fallback[back], self._fallback_hits[back], minlength=len(hits)).astype(np.int64)
        predicted += np.bincount(fallback[back], self._fallback_known[back], minlength=len(hits)).astype(np.int64)

        filled = line.falls_back[rows] > 0
        added = ~(filled & (fallback[rows] == label))
        values = self._label_value(
            label,
            hits[label] + _partial_sums(added * problem.bits[rows, label].astype(np.int64)),
            predicted[label] + _partial_sums(added * problem.known[rows, label].astype(np.int64)),
        )
        for other in range(len(hits)):
            if other != label:
                places = np.flatnonzero(filled & (fallback[rows] == other))
                lost_hits = _partial_sums(self._fallback_hits[rows[places]])
                lost_predicted = _partial_sums(self._fallback_known[rows[places]])
                of_other = self._label_value(other, hits[other] - lost_hits, predicted[other] - lost_predicted)
                changes = np.zeros(rows.size)
                changes[places] = np.diff(of_other)
                values = values + of_other[0] + (_partial_sums(changes) if places.size else 0.0)
        return values / max(1, int(np.count_nonzero(self._in_mean)))

    def _label_value(self, label: int, true_positives: Ints, predicted: Ints) -> Floats:
        """The criterion of one label; 0 if the mean leaves the label out."""
        if not self._in_mean[label]:
            return np.zeros(len(true_positives))
        return self._criterion.value(Counts(true_positives, predicted, self._positives[0][label], self._size[0][label]))

    def _move(self, label: int, threshold: float) -> None:
        problem = self._problem
        column = (problem.probabilities[:, label] >= threshold).view(np.uint8)
        rows = np.flatnonzero(column != self._decided[:, label])
        bits, known = take_rows(problem.bits, rows), take_rows(problem.known, rows)
        before = self._filled(rows)
        self._decided_labels[rows] += column[rows].astype(np.int64) - self._decided[rows, label]
        self._decided[:, label], self.thresholds[label] = column, threshold
        after = self._filled(rows)
        self._row_hits[rows] = (after & bits).sum(axis=1, dtype=np.int64)
        self._row_predicted[rows] = (after & known).sum(axis=1, dtype=np.int64)
        for totals, cells in ((self._label_hits, bits), (self._label_predicted, known)):
            totals += (after & cells).sum(axis=0, dtype=np.int64) - (before & cells).sum(axis=0, dtype=np.int64)

    def _filled(self, rows: Ints) -> Bits:
        """The decisions (n, K) of some rows, empty ones with their fallback."""
        filled = take_rows(self._decided, rows)
        empty = np.flatnonzero(self._decided_labels[rows] == 0)
        filled[empty, self._fallback[rows[empty]]] = 1
        return filled


def _partial_sums(changes: NDArray[Any]) -> NDArray[Any]:
    """Sums of the first 0, 1, ... changes."""
    return np.append(np.zeros(1, changes.dtype), np.cumsum(changes))
