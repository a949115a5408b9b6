"""What thresholds are fitted to: targets, probabilities, the metric, and the rules for rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.arrays import Bits, Floats, Known, Targets, split_scores
from pipeline.evaluation.metrics import METRICS, Metric
from pipeline.evaluation.rules import RowRules


@dataclass(frozen=True, eq=False)
class Problem:
    """N rows and K labels, to be decided so that `metric` is best; made by `pose`.

    Attributes:
        metric: a metric of decisions.
        targets: (N, K) as the metric takes them.
        bits: (N, K) the targets as 0/1, 0 where unknown.
        known: (N, K).
        probabilities: (N, K) in [0, 1].
        rules: what is applied after the thresholds, and so takes part in the objective.
    """

    metric: Metric
    targets: NDArray[Any]
    bits: Bits
    known: Known
    probabilities: Floats
    rules: RowRules = field(default_factory=RowRules)

    @property
    def labels(self) -> int:
        """The number of labels K."""
        return int(self.bits.shape[1])

    @property
    def positives(self) -> NDArray[np.int64]:
        """Known positives per label, (K,)."""
        return np.asarray(np.count_nonzero(self.bits, axis=0))

    def value(self, thresholds: Floats) -> float:
        """The metric of the decisions that thresholds (K,) give, negated where smaller is better; -inf for NaN."""
        value = self.metric.function(self.targets, self.rules.apply(self.probabilities, thresholds)).value
        signed = value if self.metric.greater_is_better else -value
        return -math.inf if math.isnan(signed) else signed

    def of_rows(self, rows: NDArray[np.bool_]) -> Problem:
        """The same problem on some of its rows (N,)."""
        return replace(
            self,
            targets=self.targets[rows],
            bits=self.bits[rows],
            known=self.known[rows],
            probabilities=self.probabilities[rows],
        )


def pose(metric: Metric, targets: Targets, probabilities: Floats, rules: RowRules | None = None) -> Problem:
    """The problem of deciding for a metric; one of probabilities is decided for f1_macro, as reports show it.

    Raises:
        ValueError: the tables are not as `split_scores` asks for.
    """
    bits, known, table = split_scores(targets, probabilities)
    judge = metric if metric.takes == "decisions" else METRICS["f1_macro"]
    return Problem(judge, np.asarray(targets), bits, known, table, rules or RowRules())
