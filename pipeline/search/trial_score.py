"""The score of a trial: a metric of a fold's validation logits, with cross-fitted thresholds if it needs any."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.competition.folds import stratified_folds
from pipeline.competition.folds.rows import rows_of
from pipeline.metrics.registry import Metric, get_metric
from pipeline.prediction.ensemble import sigmoid
from pipeline.run.plan import Plan
from pipeline.thresholds.cross_fitting import score_out_of_fold

_PARTS = 5  # of a fold's rows, for cross-fitting thresholds


@dataclass(frozen=True)
class TrialScore:
    """Scores the validation logits of a fold. A threshold is never scored on the rows it was fitted on.

    Attributes:
        plan: the run.
        metric: the metric.
        cross_fitted: whether thresholds are fitted; each part of the fold's rows gets those of the other parts.
    """

    plan: Plan
    metric: Metric
    cross_fitted: bool

    @property
    def name(self) -> str:
        """The name as printed."""
        return f"{self.metric.name}, cross-fitted" if self.cross_fitted else self.metric.name

    @property
    def greater_is_better(self) -> bool:
        """Whether a higher score is better."""
        return self.metric.greater_is_better

    def __call__(self, fold: int, logits: NDArray[np.float64]) -> float:
        """The score of logits (V, K) in the order of the fold's validation rows; NaN if there is none."""
        if not np.isfinite(logits).all():
            return math.nan
        rows = rows_of(self.plan.folds, fold).validation
        targets, probabilities = self.plan.table.truths[rows], sigmoid(logits)
        if not self.cross_fitted:
            return self.metric.function(targets, probabilities).value
        policy = self.plan.config.thresholds.policy
        result = score_out_of_fold(
            self.metric,
            targets,
            probabilities,
            self._parts(rows),
            policy="per_label" if policy == "optuna" else policy,  # optuna takes minutes per score
            rules=self.plan.rules,
            resamples=0,
        )
        return result.cross_fitted.pooled.value

    def _parts(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        table = self.plan.table
        groups = None if table.groups is None else [table.groups[row] for row in rows]
        return stratified_folds(
            [table.ids[row] for row in rows],
            table.positives[rows],
            table.labels,
            count=min(_PARTS, len(rows) if groups is None else len(set(groups))),
            seed=self.plan.config.folds.seed,
            groups=groups,
        )


def build_trial_score(plan: Plan) -> TrialScore:
    """The score that `search.judge` names."""
    asked = plan.config.search.judge
    if asked == "map" or (asked == "auto" and plan.metric.takes == "decisions"):
        return TrialScore(plan, get_metric("map"), cross_fitted=False)
    return TrialScore(plan, plan.metric, cross_fitted=plan.metric.takes == "decisions")
