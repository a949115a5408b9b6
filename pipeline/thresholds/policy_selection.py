"""Fits of calibration and thresholds on subsets of the folds, and policies chosen by scores cross-fitted inside one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, nearest
from pipeline.metrics.bootstrap import Resamples
from pipeline.metrics.targets import Bits, Floats, Ints, take_rows
from pipeline.thresholds.calibration import Calibration, fit_platt
from pipeline.thresholds.fitting.optuna_tuning import tune
from pipeline.thresholds.policies import POLICIES, from_logits, shrink, threshold_logits
from pipeline.thresholds.threshold_problem import ThresholdProblem

STRENGTHS = (300.0, 100.0, 30.0, 10.0)
SHRUNK = tuple(f"shrunk {strength:g}" for strength in STRENGTHS)
AUTO = ("fixed", "global", "prevalence", *SHRUNK, "per_label")
"""The policies that `auto` chooses from, the simplest first: from no fitted number to K independent ones."""

CHOICES = (*POLICIES, "shrunk", "optuna", "auto")
_DEFAULT = "shrunk 30"  # of `auto` and `shrunk`, where a single fold leaves nothing to choose by
_RESAMPLES = 100  # for the standard error of a difference
_TRIALS, _REACH = 200, 0.3  # of `optuna`; the reach is in logits
_STRENGTH_TRIALS = 20
_UNDEFINED = -1e9  # in place of a score that is NaN: Optuna takes finite numbers only


class SubsetFit:
    """Calibration and thresholds fitted on some rows of a problem; thresholds are fitted at their first use."""

    def __init__(self, problem: ThresholdProblem, rows: NDArray[np.bool_], *, platt: bool) -> None:
        self._problem, self._rows = problem, rows
        self.calibration: Calibration | None = None
        if platt:
            subset = problem.subset(rows)
            self.calibration = fit_platt(subset.targets, subset.probabilities)
        self._thresholds: dict[str, Floats] = {}

    def problem(self) -> ThresholdProblem:
        """The problem of the fitted rows, calibrated; not stored, for many large ones would fill the memory."""
        if self.calibration is None:
            return self._problem.masked(self._rows)
        subset = self._problem.subset(self._rows)
        return replace(subset, probabilities=self.calibration.apply(subset.probabilities))

    def thresholds(self, policy: str) -> Floats:
        """Thresholds (K,) of a key of `POLICIES`, or of `shrunk` with a strength, such as `shrunk 30`."""
        if policy not in self._thresholds:
            if policy.startswith("shrunk "):
                own, shared = self.thresholds("per_label"), self.thresholds("global")
                positives = np.asarray(np.count_nonzero(self._problem.bits[self._rows], axis=0))
                self._thresholds[policy] = shrink(own, shared, positives, float(policy.removeprefix("shrunk ")))
            else:
                self._thresholds[policy] = POLICIES[policy](self.problem())
        return self._thresholds[policy]

    def calibrated(self, probabilities: Floats) -> Floats:
        """Calibrated probabilities (n, K) of any rows."""
        return probabilities if self.calibration is None else self.calibration.apply(probabilities)


class CrossFitter:
    """Fits on subsets of the folds. Each is made once, for nested cross-fitting uses the same subsets repeatedly.

    Args:
        problem: all N rows.
        folds: (N,) the fold of each row.
        platt: whether probabilities are calibrated first.
        groups: (N,) rows of one group are resampled together for standard errors; None resamples single rows.
    """

    def __init__(self, problem: ThresholdProblem, folds: Ints, *, platt: bool, groups: Ints | None = None) -> None:
        self._problem, self._folds, self._platt = problem, folds, platt
        self._groups = groups
        self._fits: dict[frozenset[int], SubsetFit] = {}

    def fit_on(self, folds: frozenset[int]) -> SubsetFit:
        """The fit on the rows of these folds."""
        if folds not in self._fits:
            rows = np.isin(self._folds, list(folds))
            self._fits[folds] = SubsetFit(self._problem, rows, platt=self._platt)
        return self._fits[folds]

    def thresholds(self, policy: str, folds: frozenset[int]) -> tuple[str, Floats]:
        """The policy that `policy`, one of `CHOICES`, chooses on these folds, and its thresholds (K,).

        auto: starts with the first policy of `AUTO` and takes a later one if its score, cross-fitted inside these
            folds, is higher by more than the standard error of the paired difference.
        shrunk: the strength with the highest score, cross-fitted inside these folds: the best of `STRENGTHS`, then
            tuned by Optuna between its neighbours.
        optuna: the `per_label` thresholds, moved in logits by Optuna to maximise the mean of the folds' scores.

        A single fold leaves nothing to choose by: auto and shrunk are then `shrunk 30`.

        Raises:
            ConfigError: the policy is unknown.
        """
        if policy not in CHOICES:
            raise ConfigError(
                f"unknown threshold policy '{policy}'{nearest(policy, CHOICES)}",
                remedy=f"choose one of {', '.join(CHOICES)}",
            )
        if policy == "optuna":
            return policy, self._tuned_thresholds(folds)
        if policy in ("auto", "shrunk"):
            choose = self._simplest_good_policy if policy == "auto" else self._best_strength
            policy = choose(folds) if len(folds) > 1 else _DEFAULT
        return policy, self.fit_on(folds).thresholds(policy)

    def _tuned_thresholds(self, folds: frozenset[int]) -> Floats:
        fit = self.fit_on(folds)
        fold_of = self._folds[self._rows(folds)]
        problem = fit.problem().unmasked()
        start = fit.thresholds("per_label")
        logits = threshold_logits(start)

        def thresholds(moved: Floats) -> Floats:
            return np.where(moved == logits, start, from_logits(moved))

        # The same folds for all candidates: none may gain by making its worst fold undefined.
        problems = (problem.subset(fold_of == fold) for fold in sorted(folds))
        defined = [problem for problem in problems if np.isfinite(problem.value(start))]

        def mean_score(moved: Floats) -> float:
            values = [max(problem.value(thresholds(moved)), _UNDEFINED) for problem in defined]
            return float(np.mean(values)) if values else 0.0

        return thresholds(tune(logits, mean_score, reach=_REACH, trials=_TRIALS))

    def _simplest_good_policy(self, folds: frozenset[int]) -> str:
        rows, groups = self._rows(folds), self._groups
        metric, targets = self._problem.metric, take_rows(self._problem.targets, rows)
        sign = 1.0 if metric.greater_is_better else -1.0
        resamples = Resamples(
            metric,
            targets,
            tables=len(AUTO),
            groups=None if groups is None else groups[rows],
            resamples=_RESAMPLES,
        )
        scores, resampled = [], []
        for policy in AUTO:  # one table in memory at a time, for it may be large
            decisions = self._cross_fitted_decisions(policy, folds)
            scores.append(sign * metric.function(targets, decisions).value)
            resampled.append(sign * resamples.scores(decisions))
        chosen = 0
        for later in range(1, len(AUTO)):
            differences = resampled[later] - resampled[chosen]
            differences = differences[~np.isnan(differences)]
            if differences.size and scores[later] - scores[chosen] > differences.std():
                chosen = later
        return AUTO[chosen]

    def _best_strength(self, folds: frozenset[int]) -> str:
        """`shrunk` with the best strength, rounded to three digits."""
        metric, targets = self._problem.metric, take_rows(self._problem.targets, self._rows(folds))

        def score(policy: str) -> float:
            value = metric.function(targets, self._cross_fitted_decisions(policy, folds)).value
            signed = value if metric.greater_is_better else -value
            return _UNDEFINED if np.isnan(signed) else signed

        def policy_of(logarithm: Floats) -> str:
            return f"shrunk {np.exp(logarithm[0]):.3g}"

        best = max(STRENGTHS, key=lambda strength: score(f"shrunk {strength:g}"))
        return policy_of(
            tune(np.log([best]), lambda moved: score(policy_of(moved)), reach=np.log(3.0), trials=_STRENGTH_TRIALS)
        )

    def decisions(self, thresholds: Mapping[int, Floats]) -> Bits:
        """Decisions (n, K) of the rows of some folds, in row order, by each fold's thresholds (K,).

        The probabilities of each fold are calibrated by the fit on the other folds.
        """
        folds = frozenset(thresholds)
        fold_of = self._folds[self._rows(folds)]
        decisions = np.empty((fold_of.size, self._problem.labels), dtype=np.uint8, order="F")
        for fold, own in thresholds.items():
            decisions[fold_of == fold] = self._problem.rules.apply(self._calibrated_without(fold, folds), own)
        return decisions

    def probabilities(self) -> Floats:
        """All probabilities (N, K), those of each fold calibrated by the fit on the other folds."""
        folds = frozenset(np.unique(self._folds).tolist())
        calibrated = np.empty_like(self._problem.probabilities)
        for fold in sorted(folds):
            calibrated[self._folds == fold] = self._calibrated_without(fold, folds)
        return calibrated

    def _calibrated_without(self, fold: int, folds: frozenset[int]) -> Floats:
        """The probabilities of a fold's rows, calibrated by the fit on the others of `folds`."""
        return self.fit_on(folds - {fold}).calibrated(take_rows(self._problem.probabilities, self._folds == fold))

    def _cross_fitted_decisions(self, policy: str, folds: frozenset[int]) -> Bits:
        """Decisions of the rows of these folds, those of each fold by the fit on the other ones."""
        return self.decisions({fold: self.fit_on(folds - {fold}).thresholds(policy) for fold in sorted(folds)})

    def _rows(self, folds: frozenset[int]) -> Ints:
        return np.flatnonzero(np.isin(self._folds, list(folds)))
