"""Scores that say what they were fitted on: in-sample beside cross-fitted, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.bootstrap import RESAMPLES, Interval, interval, resample
from pipeline.metrics.means import MetricValue
from pipeline.metrics.registry import Metric
from pipeline.metrics.targets import Bits, Floats, Ints, Targets, take_rows
from pipeline.thresholds.calibration import Calibration
from pipeline.thresholds.policy_selection import Fits
from pipeline.thresholds.row_rules import RowRules
from pipeline.thresholds.threshold_problem import threshold_problem

EPOCH_MARK = "epoch chosen on these rows"
"""What stands beside every score of a run that kept its best epoch: a choice that cannot be cross-fitted."""

CalibrationName = Literal["auto", "none", "platt"]


@dataclass(frozen=True, eq=False)
class FoldedScore:
    """A metric over all rows at once and over each part's rows."""

    pooled: MetricValue
    folds: tuple[float, ...]  # in the order of OutOfFoldScores.part_ids; NaN where the metric has no value
    interval: Interval  # of the pooled value, 95 %

    @property
    def mean(self) -> float:
        """Mean over the folds, leaving out those whose value is NaN; NaN if all are."""
        known = [value for value in self.folds if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan

    @property
    def disagrees(self) -> bool:
        """Whether the mean of the folds lies outside the interval of the pooled value."""
        return self.mean < self.interval.low or self.mean > self.interval.high


@dataclass(frozen=True, eq=False)
class OutOfFoldScores:
    """Out-of-fold scores of the decisions that would be submitted, P parts, N rows, K labels.

    In-sample: calibrated and decided by what was fitted on the very same rows, so the score flatters.
    Cross-fitted: each part by what was fitted on the other parts, the choice of a policy included, so the score
    can be believed.
    """

    fitted: bool  # whether the score rests on anything fitted; if not, both scores are the same
    policy: str  # what was chosen on all rows: a policy, or a strength of `shrunk`
    calibration: Calibration | None  # fitted on all rows: the one to submit with
    thresholds: Floats  # (K,) fitted on all rows, for calibrated probabilities: the ones to submit with
    in_sample: FoldedScore
    in_sample_decisions: Bits  # (N, K)
    cross_fitted: FoldedScore
    cross_fitted_decisions: Bits  # (N, K)
    cross_fitted_probabilities: Floats  # (N, K) calibrated where calibration is asked for
    part_ids: Ints  # (P,) ascending
    part_policies: tuple[str, ...]  # what was chosen without each part
    part_thresholds: Floats  # (P, K) the thresholds that decided each part, fitted without it


def score_out_of_fold(
    metric: Metric,
    targets: Targets,
    probabilities: Floats,
    parts: Ints,
    *,
    policy: str,
    rules: RowRules | None = None,
    calibration: CalibrationName = "none",
    groups: Ints | None = None,
    resamples: int = RESAMPLES,
) -> OutOfFoldScores:
    """Score out-of-fold probabilities, decided by thresholds that have and that have not seen the same rows.

    The row rules are applied before scoring. A metric of probabilities is scored on these, calibrated if asked
    for; decisions are still made, by thresholds for f1_macro (see `fit_thresholds`).

    Args:
        metric: what to score.
        targets: (N, K), see `split_targets`.
        probabilities: (N, K) in [0, 1], each row predicted by a model that was not trained on it.
        parts: (N,) the fold of each row; where there is one fold only, any even split of its rows.
        policy: how thresholds are fitted, one of `choice.CHOICES`; see `Fits.thresholds`.
        rules: what is applied to the rows after the thresholds.
        calibration: `platt` calibrates each label first (`fit_platt`); `auto` does so for log loss alone.
        groups: (N,) rows that belong together, which intervals resample as one; None if each stands alone.
        resamples: for the intervals; with 0 these are NaN.

    Raises:
        ConfigError: the policy is unknown.
        ValueError: the arrays are not as above, or there are fewer than 2 parts.
    """
    problem = threshold_problem(metric, targets, probabilities, rules)
    if parts.shape != problem.bits.shape[:1]:
        raise ValueError(f"expected a part for each row, ({len(problem.bits)},), got {parts.shape}")
    part_ids = np.unique(parts)
    if part_ids.size < 2:
        raise ValueError(f"expected at least 2 parts, for one to be decided by the others, got {part_ids.size}")

    platt = wants_platt(calibration, metric)
    fits = Fits(problem, parts, platt=platt, groups=groups)
    everything = frozenset(part_ids.tolist())
    chosen, thresholds = fits.thresholds(policy, everything)
    apart = {part: fits.thresholds(policy, everything - {part}) for part in part_ids.tolist()}

    seen = fits.on(everything).calibrated(problem.probabilities)
    in_sample_decisions = problem.rules.apply(seen, thresholds)
    unseen = fits.probabilities_apart() if platt else seen
    cross_fitted_decisions = fits.decisions_apart({part: own for part, (_, own) in apart.items()})

    of_decisions = metric.takes == "decisions"
    tables = (in_sample_decisions, cross_fitted_decisions) if of_decisions else (seen, unseen)
    in_sample, cross_fitted = _folded(metric, problem.targets, tables, parts, groups, resamples)
    return OutOfFoldScores(
        fitted=platt or (of_decisions and policy != "fixed"),
        policy=chosen,
        calibration=fits.on(everything).calibration,
        thresholds=thresholds,
        in_sample=in_sample,
        in_sample_decisions=in_sample_decisions,
        cross_fitted=cross_fitted,
        cross_fitted_decisions=cross_fitted_decisions,
        cross_fitted_probabilities=unseen,
        part_ids=part_ids,
        part_policies=tuple(name for name, _ in apart.values()),
        part_thresholds=np.stack([own for _, own in apart.values()]),
    )


def wants_platt(calibration: CalibrationName, metric: Metric) -> bool:
    """Whether probabilities are calibrated: `auto` says so for log loss, which alone asks what they mean."""
    return calibration == "platt" or (calibration == "auto" and metric.name.startswith("log_loss"))


def _folded(
    metric: Metric,
    targets: NDArray[Any],
    tables: Sequence[NDArray[Any]],
    parts: Ints,
    groups: Ints | None,
    resamples: int,
) -> list[FoldedScore]:
    insides = [parts == part for part in np.unique(parts)]
    same = all(np.array_equal(tables[0], table) for table in tables[1:])  # as where nothing is fitted
    different = tables[:1] if same else tables
    resampled = np.empty((len(different), 0))
    if resamples:
        resampled = resample(metric, targets, different, groups=groups, resamples=resamples)
    resampled = np.broadcast_to(resampled, (len(tables), resampled.shape[1]))
    return [
        FoldedScore(
            metric.function(targets, table),
            tuple(metric.function(take_rows(targets, inside), take_rows(table, inside)).value for inside in insides),
            interval(scores),
        )
        for table, scores in zip(tables, resampled, strict=True)
    ]
