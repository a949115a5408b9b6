"""Line searches by counts where a row that no threshold decides for gets one label all the same."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.counts import Counts
from pipeline.metrics.ranking import last_of_ties
from pipeline.metrics.targets import Bits, Floats, Ints, take_rows
from pipeline.thresholds.line_search import better_on_line
from pipeline.thresholds.row_rules import RowRules
from pipeline.thresholds.threshold_problem import ThresholdProblem


def fills_only(rules: RowRules) -> bool:
    """Whether the one rule is what an empty row gets."""
    return rules.empty != "none" and rules == RowRules(rules.empty)


class _Line(NamedTuple):
    """What each row (N,) counts with one label undecided, what more with it decided, and in which order it gets so."""

    label: int
    rows: Ints  # (R,) by descending probability, where the label's decision changes anything
    alone: Bits  # 1 where no other label is decided: without this one the row gets its filling
    hits: Ints  # true positives
    taken: Ints  # known cells that are predicted
    more_hits: Ints
    more_taken: Ints


class FilledLines:
    """As the line searches by counts in `coordinate`, exact for `fills_only` rules and any criterion.

    The filling of a row is the same whatever the thresholds are, so one label's threshold decides between three
    states of a row: others are decided, and the label joins them or not; none is, and the row has its filling or
    the label.
    """

    def __init__(self, problem: ThresholdProblem, start: Floats) -> None:
        assert problem.metric.criterion is not None
        self.thresholds = start.copy()
        self._problem, self._criterion = problem, problem.metric.criterion
        self._sign = 1.0 if problem.metric.greater_is_better else -1.0
        rows, empty = np.arange(len(problem.bits)), problem.rules.empty
        self._filling = problem.probabilities.argmax(axis=1) if empty == "argmax" else np.full(rows.size, empty)
        self._filling_hits = problem.bits[rows, self._filling].astype(np.int64)
        self._filling_taken = problem.known[rows, self._filling].astype(np.int64)
        self._decided: Bits = (problem.probabilities >= start).view(np.uint8)
        self._number = self._decided.sum(axis=1, dtype=np.int64)
        chosen = self._filled(rows)
        hits, taken = chosen & problem.bits, chosen & problem.known
        self._hits, self._taken = (table.sum(axis=1, dtype=np.int64) for table in (hits, taken))
        self._label_hits, self._label_taken = (table.sum(axis=0, dtype=np.int64) for table in (hits, taken))
        self._positives = [problem.bits.sum(axis=axis, dtype=np.int64) for axis in (0, 1)]
        self._size = [problem.known.sum(axis=axis, dtype=np.int64) for axis in (0, 1)]

    def follows(self) -> bool:
        """Whether counts give the metric's own value; its mean may have weights that a criterion does not tell of."""
        line = self._line(0)
        now = np.count_nonzero(self._problem.probabilities[line.rows, 0] >= self.thresholds[0])
        return bool(np.isclose(self._values(line)[now], self._problem.value(self.thresholds), rtol=1e-9, atol=1e-12))

    def improve(self, label: int) -> bool:
        """Move one label's threshold if that gains; whether it did."""
        line = self._line(label)
        scores = self._problem.probabilities[line.rows, label]
        last = last_of_ties(scores)
        values = self._values(line)[np.append(0, last + 1)]
        threshold = better_on_line(scores[last], values, now=float(self.thresholds[label]))
        if threshold is None:
            return False
        self._move(label, threshold)
        return True

    def _line(self, label: int) -> _Line:
        problem, mine = self._problem, self._decided[:, label].astype(np.int64)
        bits, known = problem.bits[:, label].astype(np.int64), problem.known[:, label].astype(np.int64)
        alone = self._number == mine
        hits = np.where(alone, self._filling_hits, self._hits - mine * bits)
        taken = np.where(alone, self._filling_taken, self._taken - mine * known)
        rows = np.flatnonzero((known > 0) | alone)
        rows = rows[np.argsort(-problem.probabilities[rows, label])]
        more_hits = np.where(alone, bits - self._filling_hits, bits)
        more_taken = np.where(alone, known - self._filling_taken, known)
        return _Line(label, rows, alone.view(np.uint8), hits, taken, more_hits, more_taken)

    def _values(self, line: _Line) -> Floats:
        """The metric, to be large, where the label is decided for the first 0, 1, ... of the line's rows, (R + 1,)."""
        units = {"row": self._mean_of_rows, "table": self._of_table, "label": self._mean_of_labels}
        return self._sign * units[self._criterion.unit](line)

    def _of_table(self, line: _Line) -> Floats:
        hits = line.hits.sum() + _steps(line.more_hits[line.rows])
        taken = line.taken.sum() + _steps(line.more_taken[line.rows])
        return self._criterion.value(Counts(hits, taken, self._positives[0].sum(), self._size[0].sum()))

    def _mean_of_rows(self, line: _Line) -> Floats:
        counted, value = self._size[1] > 0, self._criterion.value
        before = value(Counts(line.hits, line.taken, self._positives[1], self._size[1]))
        hits, taken = line.hits + line.more_hits, line.taken + line.more_taken
        after = value(Counts(hits, taken, self._positives[1], self._size[1]))
        changes = np.where(counted, after - before, 0.0)[line.rows]
        return np.asarray(before[counted].sum() + _steps(changes)) / max(1, int(np.count_nonzero(counted)))

    def _mean_of_labels(self, line: _Line) -> Floats:
        """The label gains what rows have of it; the labels that fill rows lose it there."""
        problem, label, rows = self._problem, line.label, line.rows
        mine, filling = self._decided[:, label] > 0, self._filling
        hits, taken = self._label_hits.copy(), self._label_taken.copy()
        hits[label] -= problem.bits[mine, label].sum(dtype=np.int64)
        taken[label] -= problem.known[mine, label].sum(dtype=np.int64)
        back = mine & (line.alone > 0)  # gets its filling when the label goes
        hits += np.bincount(filling[back], self._filling_hits[back], minlength=len(hits)).astype(np.int64)
        taken += np.bincount(filling[back], self._filling_taken[back], minlength=len(taken)).astype(np.int64)

        filled = line.alone[rows] > 0
        joins = ~(filled & (filling[rows] == label))
        values = self._value_of(
            label,
            hits[label] + _steps(joins * problem.bits[rows, label].astype(np.int64)),
            taken[label] + _steps(joins * problem.known[rows, label].astype(np.int64)),
        )
        for other in range(len(hits)):
            if other != label:
                places = np.flatnonzero(filled & (filling[rows] == other))
                lost_hits = _steps(self._filling_hits[rows[places]])
                lost_taken = _steps(self._filling_taken[rows[places]])
                series = self._value_of(other, hits[other] - lost_hits, taken[other] - lost_taken)
                changes = np.zeros(rows.size)
                changes[places] = np.diff(series)
                values = values + series[0] + (_steps(changes) if places.size else 0.0)
        return values / max(1, int(np.count_nonzero(self._counted())))

    def _value_of(self, label: int, hits: Ints, taken: Ints) -> Floats:
        """The criterion of one label, 0 where the mean leaves it out."""
        if not self._counted()[label]:
            return np.zeros(len(hits))
        return self._criterion.value(Counts(hits, taken, self._positives[0][label], self._size[0][label]))

    def _counted(self) -> Bits:
        nothing = np.zeros_like(self._size[0])
        counts = Counts(nothing, nothing, self._positives[0], self._size[0])
        return self._criterion.defined(counts).view(np.uint8)

    def _move(self, label: int, threshold: float) -> None:
        problem = self._problem
        column = (problem.probabilities[:, label] >= threshold).view(np.uint8)
        rows = np.flatnonzero(column != self._decided[:, label])
        bits, known = take_rows(problem.bits, rows), take_rows(problem.known, rows)
        before = self._filled(rows)
        self._number[rows] += column[rows].astype(np.int64) - self._decided[rows, label]
        self._decided[:, label], self.thresholds[label] = column, threshold
        after = self._filled(rows)
        self._hits[rows] = (after & bits).sum(axis=1, dtype=np.int64)
        self._taken[rows] = (after & known).sum(axis=1, dtype=np.int64)
        self._label_hits += (after & bits).sum(axis=0, dtype=np.int64) - (before & bits).sum(axis=0, dtype=np.int64)
        self._label_taken += (after & known).sum(axis=0, dtype=np.int64) - (before & known).sum(axis=0, dtype=np.int64)

    def _filled(self, rows: Ints) -> Bits:
        """The decisions (n, K) of some rows, the rule applied."""
        chosen = take_rows(self._decided, rows)
        empty = np.flatnonzero(self._number[rows] == 0)
        chosen[empty, self._filling[rows[empty]]] = 1
        return chosen


def _steps(changes: NDArray[Any]) -> NDArray[Any]:
    """What the first 0, 1, ... changes add up to."""
    return np.append(np.zeros(1, changes.dtype), np.cumsum(changes))
