"""What thresholds are fitted to: targets, probabilities, the metric, and the rules for rows."""

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
    """N rows and K labels, to be decided so that `metric` is best; made by `threshold_problem`.

    Attributes:
        metric: a metric of decisions.
        targets: (N, K) as the metric takes them.
        bits: (N, K) the targets as 0/1, 0 where unknown.
        known: (N, K).
        probabilities: (N, K) in [0, 1].
        rules: what is applied after the thresholds, and so takes part in the objective.
        rows: (N,) the rows that the problem is about: no cell of the others is known. None is all.
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
        """The metric of the decisions that thresholds (K,) give, negated where smaller is better; -inf for NaN."""
        value = self.metric.function(self.targets, self.rules.apply(self.probabilities, thresholds)).value
        signed = value if self.metric.greater_is_better else -value
        return -math.inf if math.isnan(signed) else signed

    def about(self, rows: NDArray[np.bool_]) -> ThresholdProblem:
        """The problem of some of its rows (N,) on the same tables, where cells of other rows are not known."""
        if rows.all():
            return self
        everything = self.known.strides == (0, 0)  # as `split_targets` says that all cells are known
        known = np.broadcast_to(rows[:, None], self.known.shape) if everything else self.known & rows[:, None]
        return replace(self, bits=self.bits & rows[:, None], known=known, rows=rows)

    def of_rows(self, rows: NDArray[np.bool_]) -> ThresholdProblem:
        """The problem of some of its rows (N,) with tables of their own."""
        tables = (take_rows(table, rows) for table in (self.targets, self.bits, self.known, self.probabilities))
        targets, bits, known, probabilities = tables
        return replace(self, targets=targets, bits=bits, known=known, probabilities=probabilities, rows=None)

    def alone(self) -> ThresholdProblem:
        """The problem with tables of its own rows only, as the metric itself takes them."""
        return self if self.rows is None else self.of_rows(self.rows)


def threshold_problem(
    metric: Metric, targets: Targets, probabilities: Floats, rules: RowRules | None = None
) -> ThresholdProblem:
    """The problem of deciding for a metric; one of probabilities is decided for f1_macro, as reports show it.

    Raises:
        ValueError: the tables are not as `split_scores` asks for.
    """
    tables = by_label(np.asarray(targets)), by_label(np.asarray(probabilities))
    bits, known, table = split_scores(*tables)
    judge = metric if metric.takes == "decisions" else METRICS["f1_macro"]
    return ThresholdProblem(judge, tables[0], bits, known, table, rules or RowRules())
