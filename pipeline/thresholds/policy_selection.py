"""Fits on every set of parts that honest scores ask for, and the choice of a policy made inside such a set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, nearest
from pipeline.metrics.bootstrap import Resamples
from pipeline.metrics.targets import Bits, Floats, Ints, take_rows
from pipeline.thresholds.calibration import Calibration, fit_platt
from pipeline.thresholds.optuna_tuning import tune
from pipeline.thresholds.policies import POLICIES, STRENGTH, shrink
from pipeline.thresholds.threshold_problem import ThresholdProblem

STRENGTHS = (300.0, 100.0, 30.0, 10.0)
PER_STRENGTH = tuple(f"shrunk {strength:g}" for strength in STRENGTHS)
AUTO = ("fixed", "global", "prevalence", *PER_STRENGTH, "per_label")
"""What `auto` chooses from, the simplest first: from no fitted number to K fitted ones that are not held back."""

CHOICES = (*POLICIES, "optuna", "auto")
_RESAMPLES = 100  # for the standard error of a difference
_TRIALS, _REACH = 200, 0.3  # of `optuna`: how often it asks, how far a threshold may move in logits
_STRENGTH_TRIALS = 20
_WORST = -1e9  # of a score that is undefined: finite, because Optuna takes no other number
_EDGE = 1e-6  # thresholds are kept this far from 0 and 1, for their logits


class Fit:
    """What was fitted on some rows (N,) of a problem: a calibration, then thresholds by name, when first asked for."""

    def __init__(self, whole: ThresholdProblem, rows: NDArray[np.bool_], *, platt: bool) -> None:
        self._whole, self._rows = whole, rows
        self.calibration: Calibration | None = None
        if platt:
            taken = whole.of_rows(rows)
            self.calibration = fit_platt(taken.targets, taken.probabilities)
        self._thresholds: dict[str, Floats] = {}

    def problem(self) -> ThresholdProblem:
        """The problem of the rows it is fitted on, calibrated; made anew, as many large ones would fill the memory."""
        if self.calibration is None:
            return self._whole.about(self._rows)
        taken = self._whole.of_rows(self._rows)
        return replace(taken, probabilities=self.calibration.apply(taken.probabilities))

    def thresholds(self, name: str) -> Floats:
        """The thresholds (K,) of a policy, or of `shrunk` with a strength, such as `shrunk 30`."""
        if name not in self._thresholds:
            if name.startswith("shrunk "):
                own, shared = self.thresholds("per_label"), self.thresholds("global")
                strength = float(name.removeprefix("shrunk "))
                positives = np.count_nonzero(self._whole.bits[self._rows], axis=0)
                self._thresholds[name] = shrink(own, shared, np.asarray(positives), strength)
            else:
                self._thresholds[name] = POLICIES[name](self.problem())
        return self._thresholds[name]

    def calibrated(self, probabilities: Floats) -> Floats:
        """Any rows' probabilities (N, K) as the thresholds want them."""
        return probabilities if self.calibration is None else self.calibration.apply(probabilities)


class Fits:
    """Fits on sets of parts of the rows, each made once: cross-fitting inside cross-fitting asks for the same ones.

    Args:
        problem: all rows.
        parts: (N,) the part of each row.
        platt: whether probabilities are calibrated first.
        groups: (N,) rows that belong together, for standard errors; None if each stands alone.
    """

    def __init__(self, problem: ThresholdProblem, parts: Ints, *, platt: bool, groups: Ints | None = None) -> None:
        self._problem, self._parts, self._platt = problem, parts, platt
        self._groups = groups
        self._fits: dict[frozenset[int], Fit] = {}

    def on(self, parts: frozenset[int]) -> Fit:
        """What is fitted on the rows of these parts."""
        if parts not in self._fits:
            rows = np.isin(self._parts, list(parts))
            self._fits[parts] = Fit(self._problem, rows, platt=self._platt)
        return self._fits[parts]

    def thresholds(self, policy: str, parts: frozenset[int]) -> tuple[str, Floats]:
        """The name of what a policy came to on these parts, and its thresholds (K,).

        auto: starts with the first of `AUTO` and goes on to a later one where its score, cross-fitted inside these
            parts, is higher by more than the standard error of the paired difference.
        shrunk: the strength whose score, cross-fitted inside these parts, is highest: the best of `STRENGTHS`,
            then tuned by Optuna between that one's neighbours.
        optuna: the `per_label` thresholds, moved in logits by Optuna, judged by the mean of the parts' scores.

        With a single part there is nothing to choose by: auto is then `shrunk`, and shrunk has m = 30.

        Raises:
            ConfigError: the policy is unknown.
        """
        fit = self.on(parts)
        if policy not in CHOICES:
            raise ConfigError(
                f"unknown threshold policy '{policy}'{nearest(policy, CHOICES)}",
                remedy=f"choose one of {', '.join(CHOICES)}",
            )
        if policy == "optuna":
            return policy, self._tuned(parts)
        if policy not in ("auto", "shrunk"):
            return policy, fit.thresholds(policy)
        name = f"shrunk {STRENGTH:g}"
        if len(parts) > 1:
            name = self._cautious(parts) if policy == "auto" else self._strongest(parts)
        return name, fit.thresholds(name)

    def _tuned(self, parts: frozenset[int]) -> Floats:
        fit = self.on(parts)
        inside = self._parts[self._rows(parts)]
        problem = fit.problem().alone()
        problems = [problem.of_rows(inside == part) for part in sorted(parts)]
        start = fit.thresholds("per_label")
        kept = np.clip(start, _EDGE, 1.0 - _EDGE)
        logits = np.log(kept / (1.0 - kept))

        def thresholds(moved: Floats) -> Floats:
            return np.where(moved == logits, start, 1.0 / (1.0 + np.exp(-moved)))

        # The same parts for all candidates: none may gain by making its worst part undefined.
        judged = [problem for problem in problems if np.isfinite(problem.value(start))]

        def judge(moved: Floats) -> float:
            values = [max(problem.value(thresholds(moved)), _WORST) for problem in judged]
            return float(np.mean(values)) if values else 0.0

        return thresholds(tune(logits, judge, reach=_REACH, trials=_TRIALS))

    def _cautious(self, parts: frozenset[int]) -> str:
        rows, groups = self._rows(parts), self._groups
        metric, targets = self._problem.metric, take_rows(self._problem.targets, rows)
        sign = 1.0 if metric.greater_is_better else -1.0
        same = Resamples(
            metric,
            targets,
            tables=len(AUTO),
            groups=None if groups is None else groups[rows],
            resamples=_RESAMPLES,
        )
        scores, resampled = [], []
        for name in AUTO:  # one table after the other, for a single one may be large
            decisions = self._cross_fitted(name, parts)
            scores.append(sign * metric.function(targets, decisions).value)
            resampled.append(sign * same.scores(decisions))
        chosen = 0
        for later in range(1, len(AUTO)):
            differences = resampled[later] - resampled[chosen]
            known = differences[~np.isnan(differences)]
            if known.size and scores[later] - scores[chosen] > known.std():
                chosen = later
        return AUTO[chosen]

    def _strongest(self, parts: frozenset[int]) -> str:
        """`shrunk` with the best strength; three digits of it are plenty."""

        targets = take_rows(self._problem.targets, self._rows(parts))

        def score(name: str) -> float:
            value = self._problem.metric.function(targets, self._cross_fitted(name, parts)).value
            signed = value if self._problem.metric.greater_is_better else -value
            return _WORST if np.isnan(signed) else signed

        def named(logarithm: Floats) -> str:
            return f"shrunk {np.exp(logarithm[0]):.3g}"

        best = max(STRENGTHS, key=lambda strength: score(f"shrunk {strength:g}"))
        tuned = tune(
            np.log([best]), lambda logarithm: score(named(logarithm)), reach=np.log(3.0), trials=_STRENGTH_TRIALS
        )
        return named(tuned)

    def decisions_apart(self, thresholds: Mapping[int, Floats]) -> Bits:
        """Decisions (n, K) of the rows of some parts, in their order: each part's by thresholds (K,) of its own.

        Its probabilities are calibrated by what the others of these parts fitted.
        """
        parts = frozenset(thresholds)
        rows = self._rows(parts)
        decisions = np.empty((rows.size, self._problem.labels), dtype=np.uint8, order="F")
        for part, own in thresholds.items():
            decisions[self._parts[rows] == part] = self._problem.rules.apply(self._without(part, parts), own)
        return decisions

    def probabilities_apart(self) -> Floats:
        """All probabilities (N, K), each part's calibrated by what the others fitted."""
        parts = frozenset(np.unique(self._parts).tolist())
        unseen = np.empty_like(self._problem.probabilities)
        for part in sorted(parts):
            unseen[self._parts == part] = self._without(part, parts)
        return unseen

    def _without(self, part: int, parts: frozenset[int]) -> Floats:
        """The probabilities of a part's rows, calibrated by what the others of these parts fitted."""
        return self.on(parts - {part}).calibrated(take_rows(self._problem.probabilities, self._parts == part))

    def _cross_fitted(self, name: str, parts: frozenset[int]) -> Bits:
        """The decisions of the rows of these parts: each part's by what the other parts fitted."""
        return self.decisions_apart({part: self.on(parts - {part}).thresholds(name) for part in sorted(parts)})

    def _rows(self, parts: frozenset[int]) -> Ints:
        return np.flatnonzero(np.isin(self._parts, list(parts)))
