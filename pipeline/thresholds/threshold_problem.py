"""The problem that a policy solves: targets, probabilities, the metric to maximise, and the row rules."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.registry import METRICS, Metric
from pipeline.metrics.targets import Bits, Floats, Known, Targets, by_label, split_scores, take_rows
from pipeline.thresholds.row_rules import RowRules


@dataclass(frozen=True, eq=False)
class ThresholdProblem:
    """N rows and K labels for which thresholds are sought; made by `threshold_problem`.

    Attributes:
        metric: a metric of decisions, the objective.
        targets: (N, K) as the metric takes them.
        bits: (N, K) the targets as 0/1, 0 where unknown.
        known: (N, K) mask of the known cells.
        probabilities: (N, K) in [0, 1].
        rules: applied after the thresholds, and so part of the objective.
        rows: (N,) mask of the rows in use; all cells of the others are unknown. None if all rows are in use.
    """

    metric: Metric
    targets: NDArray[Any]
    bits: Bits
    known: Known
    probabilities: Floats
    rules: RowRules = field(default_factory=RowRules)
    rows: NDArray[np.bool_] | None = None

    @property
    def labels(self) -> int:
        """The number of labels K."""
        return int(self.bits.shape[1])

    @property
    def positives(self) -> NDArray[np.int64]:
        """Known positives per label, (K,)."""
        return np.asarray(np.count_nonzero(self.bits.view(np.bool_), axis=0))

    def value(self, thresholds: Floats) -> float:
        """The metric of the decisions by thresholds (K,), negated if smaller is better; -inf if it is NaN."""
        value = self.metric.function(self.targets, self.rules.apply(self.probabilities, thresholds)).value
        signed = value if self.metric.greater_is_better else -value
        return -math.inf if math.isnan(signed) else signed

    def masked(self, rows: NDArray[np.bool_]) -> ThresholdProblem:
        """The problem of the rows in a mask (N,), on the same tables: all cells of other rows become unknown."""
        if rows.all():
            return self
        all_known = self.known.strides == (0, 0)  # how `split_targets` marks it
        known = np.broadcast_to(rows[:, None], self.known.shape) if all_known else self.known & rows[:, None]
        return replace(self, bits=self.bits & rows[:, None], known=known, rows=rows)

    def subset(self, rows: NDArray[np.bool_]) -> ThresholdProblem:
        """The problem of the rows in a mask (N,), on copies of these rows."""
        tables = (take_rows(table, rows) for table in (self.targets, self.bits, self.known, self.probabilities))
        targets, bits, known, probabilities = tables
        return replace(self, targets=targets, bits=bits, known=known, probabilities=probabilities, rows=None)

    def unmasked(self) -> ThresholdProblem:
        """The problem without the rows that are not in use, as the metric itself takes the tables."""
        return self if self.rows is None else self.subset(self.rows)


def threshold_problem(
    metric: Metric, targets: Targets, probabilities: Floats, rules: RowRules | None = None
) -> ThresholdProblem:
    """The problem of maximising `metric`; for a metric of probabilities, f1_macro takes its place.

    Targets and probabilities are (N, K). Raises ValueError as `split_scores`.
    """
    tables = by_label(np.asarray(targets)), by_label(np.asarray(probabilities))
    bits, known, table = split_scores(*tables)
    objective = metric if metric.takes == "decisions" else METRICS["f1_macro"]
    return ThresholdProblem(objective, tables[0], bits, known, table, rules or RowRules())
