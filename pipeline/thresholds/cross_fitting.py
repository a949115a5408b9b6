"""Out-of-fold scores, in-sample and cross-fitted, with their bootstrap intervals."""

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
from pipeline.thresholds.policy_selection import CrossFitter
from pipeline.thresholds.row_rules import RowRules
from pipeline.thresholds.threshold_problem import threshold_problem

BEST_EPOCH_NOTE = "epoch chosen on these rows"
"""Note on each score of a run that kept its best epoch: this choice cannot be cross-fitted."""

CalibrationName = Literal["auto", "none", "platt"]


@dataclass(frozen=True, eq=False)
class FoldedScore:
    """A metric over all rows at once, and over the rows of each fold."""

    pooled: MetricValue
    folds: tuple[float, ...]  # in the order of OutOfFoldScores.fold_ids; NaN where the metric is undefined
    interval: Interval  # of the pooled value, 95 %

    @property
    def mean(self) -> float:
        """Mean over the folds whose value is not NaN; NaN if there is none."""
        known = [value for value in self.folds if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan

    @property
    def disagrees(self) -> bool:
        """Whether the mean of the folds lies outside the interval of the pooled value."""
        return self.mean < self.interval.low or self.mean > self.interval.high


@dataclass(frozen=True, eq=False)
class OutOfFoldScores:
    """Out-of-fold scores of F folds, N rows, K labels.

    In-sample: calibration, policy and thresholds are fitted on the rows that are scored, so the score flatters.
    Cross-fitted: for each fold they are fitted on the other folds, so the score does not flatter.
    """

    fitted: bool  # False if nothing was fitted; both scores are then the same
    policy: str  # chosen on all rows; `shrunk` with its strength
    calibration: Calibration | None  # fitted on all rows, for the submission
    thresholds: Floats  # (K,) of calibrated probabilities, fitted on all rows, for the submission
    in_sample: FoldedScore
    in_sample_decisions: Bits  # (N, K)
    cross_fitted: FoldedScore
    cross_fitted_decisions: Bits  # (N, K)
    cross_fitted_probabilities: Floats  # (N, K), calibrated if the calibration is on
    fold_ids: Ints  # (F,) ascending
    fold_policies: tuple[str, ...]  # chosen without the fold
    fold_thresholds: Floats  # (F, K) fitted without the fold, for its decisions


def score_out_of_fold(
    metric: Metric,
    targets: Targets,
    probabilities: Floats,
    folds: Ints,
    *,
    policy: str,
    rules: RowRules | None = None,
    calibration: CalibrationName = "none",
    groups: Ints | None = None,
    resamples: int = RESAMPLES,
) -> OutOfFoldScores:
    """Scores out-of-fold probabilities, and the decisions from them, in-sample and cross-fitted.

    Row rules are applied before scoring. A metric of probabilities is scored on the calibrated probabilities; the
    decisions are then made by thresholds for f1_macro.

    Args:
        metric: the score.
        targets: (N, K), see `split_targets`.
        probabilities: (N, K) in [0, 1], each row predicted by a model that was not trained on it.
        folds: (N,) the fold of each row; if all rows are of one fold, any even split of them.
        policy: one of `policy_selection.CHOICES`, see `CrossFitter.thresholds`.
        rules: the row rules, applied after the thresholds.
        calibration: `platt` calibrates each label first (`fit_platt`); `auto` does so for log loss alone.
        groups: (N,) rows of one group are resampled together for the intervals; None resamples single rows.
        resamples: for the intervals, which are NaN with 0.

    Raises:
        ConfigError: the policy is unknown.
        ValueError: the arrays are not as above, or there are fewer than 2 folds.
    """
    problem = threshold_problem(metric, targets, probabilities, rules)
    if folds.shape != problem.bits.shape[:1]:
        raise ValueError(f"expected a fold for each row, ({len(problem.bits)},), got {folds.shape}")
    fold_ids = np.unique(folds)
    if fold_ids.size < 2:
        raise ValueError(f"expected at least 2 folds, to fit on one and score another, got {fold_ids.size}")

    # Log loss alone measures the probabilities themselves.
    platt = calibration == "platt" or (calibration == "auto" and metric.name.startswith("log_loss"))
    fitter = CrossFitter(problem, folds, platt=platt, groups=groups)
    all_folds = frozenset(fold_ids.tolist())
    chosen, thresholds = fitter.thresholds(policy, all_folds)
    without = {fold: fitter.thresholds(policy, all_folds - {fold}) for fold in fold_ids.tolist()}

    in_sample_probabilities = fitter.fit_on(all_folds).calibrated(problem.probabilities)
    in_sample_decisions = problem.rules.apply(in_sample_probabilities, thresholds)
    cross_fitted_probabilities = fitter.probabilities() if platt else in_sample_probabilities
    cross_fitted_decisions = fitter.decisions({fold: own for fold, (_, own) in without.items()})

    of_decisions = metric.takes == "decisions"
    tables: tuple[Bits, Bits] | tuple[Floats, Floats] = in_sample_probabilities, cross_fitted_probabilities
    if of_decisions:
        tables = in_sample_decisions, cross_fitted_decisions
    in_sample, cross_fitted = _folded_scores(metric, problem.targets, tables, folds, groups, resamples)
    return OutOfFoldScores(
        fitted=platt or (of_decisions and policy != "fixed"),
        policy=chosen,
        calibration=fitter.fit_on(all_folds).calibration,
        thresholds=thresholds,
        in_sample=in_sample,
        in_sample_decisions=in_sample_decisions,
        cross_fitted=cross_fitted,
        cross_fitted_decisions=cross_fitted_decisions,
        cross_fitted_probabilities=cross_fitted_probabilities,
        fold_ids=fold_ids,
        fold_policies=tuple(name for name, _ in without.values()),
        fold_thresholds=np.stack([own for _, own in without.values()]),
    )


def _folded_scores(
    metric: Metric,
    targets: NDArray[Any],
    tables: Sequence[NDArray[Any]],
    folds: Ints,
    groups: Ints | None,
    resamples: int,
) -> list[FoldedScore]:
    masks = [folds == fold for fold in np.unique(folds)]
    equal = all(np.array_equal(tables[0], table) for table in tables[1:])  # as if nothing is fitted
    distinct = tables[:1] if equal else tables
    resampled = np.empty((len(distinct), 0))
    if resamples:
        resampled = resample(metric, targets, distinct, groups=groups, resamples=resamples)
    resampled = np.broadcast_to(resampled, (len(tables), resampled.shape[1]))
    return [
        FoldedScore(
            metric.function(targets, table),
            tuple(metric.function(take_rows(targets, rows), take_rows(table, rows)).value for rows in masks),
            interval(scores),
        )
        for table, scores in zip(tables, resampled, strict=True)
    ]
