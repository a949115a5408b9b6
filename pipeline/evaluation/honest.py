"""Scores that say what they were fitted on: in-sample beside cross-fitted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.arrays import Binary, Bits, Floats, Ints, checked_scores
from pipeline.evaluation.metrics import Metric, MetricValue
from pipeline.evaluation.rules import EmptyPolicy
from pipeline.evaluation.thresholds import decide, fit_thresholds

EPOCH_MARK = "epoch chosen on these rows"
"""What stands beside every score of a run that kept its best epoch: a choice that cannot be cross-fitted."""


@dataclass(frozen=True, eq=False)
class FoldedScore:
    """A metric over all rows at once and over each part's rows."""

    pooled: MetricValue
    folds: tuple[float, ...]  # in the order of HonestScores.part_ids; NaN where the metric has no value

    @property
    def mean(self) -> float:
        """Mean over the folds, leaving out those whose value is NaN; NaN if all are."""
        known = [value for value in self.folds if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan


@dataclass(frozen=True, eq=False)
class HonestScores:
    """Out-of-fold scores of the decisions that would be submitted, P parts, N rows, K labels.

    In-sample: decided by the thresholds that were fitted on the very same rows, so the score flatters.
    Cross-fitted: each part is decided by thresholds fitted on the other parts, so the score can be believed.
    """

    fitted: bool  # whether the score rests on fitted thresholds; if not, both scores are the same
    thresholds: Floats  # (K,) fitted on all rows: the ones to submit with
    in_sample: FoldedScore
    in_sample_decisions: Bits  # (N, K)
    cross_fitted: FoldedScore
    cross_fitted_decisions: Bits  # (N, K)
    part_ids: Ints  # (P,) ascending
    part_thresholds: Floats  # (P, K) the thresholds that decided each part, fitted without it


def score_out_of_fold(
    metric: Metric, targets: Binary, probabilities: Floats, parts: Ints, *, policy: str, empty: EmptyPolicy
) -> HonestScores:
    """Score out-of-fold probabilities, decided by thresholds that have and that have not seen the same rows.

    The empty policy is applied before scoring. A metric of probabilities is scored on these, and nothing that
    is fitted touches it; decisions are still made, by thresholds for f1_macro (see `fit_thresholds`).

    Args:
        metric: what to score.
        targets: (N, K) 0/1.
        probabilities: (N, K) in [0, 1], each row predicted by a model that was not trained on it.
        parts: (N,) the fold of each row; where there is one fold only, any even split of its rows.
        policy: how thresholds are fitted, a key of `thresholds.POLICIES`.
        empty: what a row without a decision gets, see `thresholds.decide`.

    Raises:
        ConfigError: the policy is unknown.
        ValueError: the arrays are not as above, or there are fewer than 2 parts.
    """
    targets, probabilities = checked_scores(targets, probabilities)
    if parts.shape != targets.shape[:1]:
        raise ValueError(f"expected a part for each row, ({targets.shape[0]},), got {parts.shape}")
    part_ids = np.unique(parts)
    if part_ids.size < 2:
        raise ValueError(f"expected at least 2 parts, for one to be decided by the others, got {part_ids.size}")

    thresholds = fit_thresholds(policy, metric, targets, probabilities)
    in_sample_decisions = decide(probabilities, thresholds, empty=empty)
    part_thresholds = np.empty((part_ids.size, thresholds.size))
    cross_fitted_decisions = np.empty_like(in_sample_decisions)
    for row, part in enumerate(part_ids):
        inside = parts == part
        part_thresholds[row] = fit_thresholds(policy, metric, targets[~inside], probabilities[~inside])
        cross_fitted_decisions[inside] = decide(probabilities[inside], part_thresholds[row], empty=empty)

    of_decisions = metric.takes == "decisions"
    return HonestScores(
        fitted=of_decisions and policy != "fixed",
        thresholds=thresholds,
        in_sample=_folded(metric, targets, in_sample_decisions if of_decisions else probabilities, parts),
        in_sample_decisions=in_sample_decisions,
        cross_fitted=_folded(metric, targets, cross_fitted_decisions if of_decisions else probabilities, parts),
        cross_fitted_decisions=cross_fitted_decisions,
        part_ids=part_ids,
        part_thresholds=part_thresholds,
    )


def _folded(metric: Metric, targets: Bits, values: Bits | Floats, parts: Ints) -> FoldedScore:
    insides = [parts == part for part in np.unique(parts)]
    folds = tuple(metric.function(targets[inside], values[inside]).value for inside in insides)
    return FoldedScore(metric.function(targets, values), folds)
