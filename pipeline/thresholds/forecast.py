"""Forecast of the test score: a value and a 95 % interval, from cross-fitted out-of-fold scores.

The interval of the cross-validated score (`FoldedScore.interval`) answers another question: how this score would
change with other training rows. The test has rows of its own, and is predicted by the mean of the fold models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pipeline.metrics.registry import Metric
from pipeline.metrics.targets import Floats, Ints, Targets, take_rows
from pipeline.thresholds.cross_fitting import OutOfFoldScores
from pipeline.thresholds.decision_rule import DecisionRule
from pipeline.thresholds.label_shift import estimated_rates, raked

GAIN = {"decisions": 0.21, "probabilities": 0.34, "loss": 0.14}
"""Gain of many models over one: rise of a score's log odds, or share of a loss. From 300 design competitions."""
GAIN_DEVIATION = {"decisions": 0.11, "probabilities": 0.14, "loss": 0.05}  # between competitions
ONE_FOLD = 0.1  # standard deviation of what one validation fold hides, as a share of the headroom
FEWEST_GROUPS = 5  # below, a bootstrap of groups means nothing
RATES_DEVIATION = 0.5  # of the shift by label rates: a test that differs in these may differ in other ways
FEWEST_USED = 0.3  # share of the rows: below, too few resemble the test
_ALL_USED = 0.999  # from here on the test has the label rates of training
_MANY_GROUPS = 30
_RESAMPLES, _FEWEST = 200, 100  # a standard deviation needs no more
_MOST_CELLS = 10_000_000  # cells of all resamples together, beyond the fewest


@dataclass(frozen=True)
class Forecast:
    """The test score to expect; NaN, with a note that says why, where there is no forecast.

    Attributes:
        value: the expected test score.
        low: of the 95 % interval.
        high: of the 95 % interval.
        shifts: what was added to the cross-validated score, by cause.
        deviations: the standard deviations of the interval, by cause.
        notes: sentences on why the interval is wide or absent.
    """

    value: float
    low: float
    high: float
    shifts: Mapping[str, float] = field(default_factory=dict)
    deviations: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def forecast(
    metric: Metric,
    targets: Targets,
    scores: OutOfFoldScores,
    rule: DecisionRule,
    *,
    folds: int,
    models: int,
    test: int | Floats,
    groups: Ints | None = None,
) -> Forecast:
    """Forecast the score of M test rows, predicted by the mean of S = `models` fold models.

    value = cross-validated score + rows + rates + transfer + models. The shifts:
        rows: a metric that is no mean over rows has a bias of c / n on n rows (few positives: an average precision
            rises, an F falls). c is measured on resamples of the size of the test.
        rates: labels may be more or less frequent in the test (`estimated_rates`). The resamples of the test then draw
            rows by weights that give these frequencies (raking, W. Deming and F. Stephan, 1940).
        transfer: the test is decided by rates (`transferred`), which differ by chance between the out-of-fold rows
            and the test. The loss is measured on the same resamples, decided by rates and by values.
        models: an out-of-fold row is predicted by one fold model, a test row by the mean of S. The log odds of a
            score s rise by g (1 - 1/S), so s by g (1 - 1/S) s (1 - s); a loss falls by the share g (1 - 1/S).
            1 - 1/S is the share of a model's own variance that the mean removes. GAIN was fitted, and this form
            chosen, by `benchmarks/forecast.py --fit`.

    variance = rows + rates + folds + models. The standard deviations:
        rows: the out-of-fold rows and the test rows are two draws, v (1/N + 1/M), v from resampled rows, or resampled
            groups (cluster bootstrap, A. C. Cameron, J. Gelbach, D. Miller, 2008) with the factor G / (G - 1).
            The quantile is Student's with G - 1 degrees of freedom, G the effective number of groups.
        rates: RATES_DEVIATION of their shift, a choice.
        folds: the variance between fold scores beyond that of their rows, over the number of folds. One fold has no
            such spread: it is ONE_FOLD of the headroom instead, as in three trainings on a published split.
        models: GAIN_DEVIATION, how much the gain differs between competitions.

    Args:
        metric: the competition's.
        targets: (N, K), as for `score_out_of_fold`.
        scores: its result.
        rule: what decides the test, with the out-of-fold probabilities (N, K).
        folds: how many folds were validated.
        models: how many fold models are averaged on the test. Seed models and runs that are averaged out of fold
            too do not count.
        test: the probabilities (M, K) of the test, or only M as long as there are none.
        groups: (N,) rows that belong together; the test is then made of other groups of the same sizes.
    """
    score, rows = scores.cross_fitted.pooled.value, len(targets)
    sizes = np.ones(rows) if groups is None else np.unique(groups, return_counts=True)[1]
    effective = float(sizes.sum() ** 2 / (sizes**2).sum())  # groups of equal size that would vary as much
    test_rows = test if isinstance(test, int) else len(test)
    if min(folds, models, test_rows) < 1:
        raise ValueError(f"expected at least 1 fold, model and test row, got {folds}, {models} and {test_rows}")
    weights = np.ones(rows)
    if not isinstance(test, int):
        weights = raked(targets, estimated_rates(targets, rule.out_of_fold, test, groups))
    used = float(weights.sum() ** 2 / (weights**2).sum() / rows)  # share of the rows that the weights leave
    absent = _why_absent(metric, score, effective, used)
    if absent:
        return no_forecast(absent)

    drawn = min(rows, test_rows)
    by_value, moved = _resampled(metric, targets, scores, rule, _Draws(rows, groups), drawn)
    if by_value.size < 2:
        return no_forecast("the metric has no value on as few rows as the test has")
    per_row = drawn * effective / (effective - 1.0)  # from a variance over `drawn` rows to that of one
    shifted, of_rows = 0.0, by_value.var() * per_row
    bias = _beyond_chance(by_value - score)
    if used < _ALL_USED:
        weighted, moved = _resampled(metric, targets, scores, rule, _Draws(rows, groups, weights), drawn)
        shifted = float(weighted.mean() - by_value.mean())
        by_value = weighted
    of_test = (by_value + moved).var() * per_row
    gain, gain_deviation = gain_of_models(metric, score, 1.0 - 1.0 / models)
    shifts = {
        "rows": bias * drawn * (1.0 / test_rows - 1.0 / rows),
        "rates": shifted,
        "transfer": _beyond_chance(moved) * drawn / test_rows,
        "models": gain,
    }
    deviations = {
        "rows": math.sqrt(of_rows / (rows * used) + of_test / test_rows),
        "rates": RATES_DEVIATION * abs(shifted),
        "folds": _between_folds(scores.cross_fitted.folds, of_rows / rows),
        "models": gain_deviation,
    }
    if folds == 1:
        deviations["folds"] = ONE_FOLD * (1.0 - score if metric.greater_is_better else score)
    value = score + sum(shifts.values())
    from scipy.special import stdtrit  # slow to import

    reach = float(stdtrit(effective - 1.0, 0.975)) * math.hypot(*deviations.values())
    low, high = value - reach, value + reach
    low, high = (low, min(high, 1.0)) if metric.greater_is_better else (max(low, 0.0), high)
    return Forecast(value, low, high, shifts, deviations, _notes(folds, models, groups, effective, used))


def no_forecast(why: str) -> Forecast:
    """A forecast that is absent, with the reason in a note."""
    return Forecast(math.nan, math.nan, math.nan, notes=(f"no forecast for the test: {why}",))


def _why_absent(metric: Metric, score: float, groups: float, used: float) -> str:
    if not math.isfinite(score):
        return "the metric has no value on the out-of-fold rows"
    if score > 1.0 if metric.greater_is_better else score < 0.0:
        return "the best value of the metric is not known"
    if groups < FEWEST_GROUPS:
        return f"the rows or groups vary as {groups:.1f} of equal size would, at least {FEWEST_GROUPS} are needed"
    if used < FEWEST_USED:
        return (
            "its predictions show that labels are far more or less frequent than in training "
            f"({100 * used:.0f} % of the rows resemble the test)"
        )
    return ""


def _notes(folds: int, models: int, groups: Ints | None, effective: float, used: float) -> tuple[str, ...]:
    notes = []
    if folds == 1:
        notes.append("the forecast is wide: one validation fold does not show how much splits differ")
    if groups is not None and effective < _MANY_GROUPS:
        notes.append(f"the forecast is wide: the groups vary as {effective:.0f} of equal size would")
    if used < _ALL_USED:
        notes.append("the forecast takes account of label rates that differ between training and test")
    if models > 1:
        notes.append(f"the forecast supposes that the mean over {models} folds gains as in simulated competitions")
    return tuple(notes)


def gain_of_models(metric: Metric, score: float, share: float) -> tuple[float, float]:
    """The gain of the mean of models over one, and its standard deviation; `share` is 1 - 1 / models."""
    if not metric.greater_is_better:
        return -GAIN["loss"] * share * score, GAIN_DEVIATION["loss"] * share * score
    slope = share * max(0.0, score * (1.0 - score))
    return GAIN[metric.takes] * slope, GAIN_DEVIATION[metric.takes] * slope


def _beyond_chance(differences: Floats) -> float:
    """The mean of resamples, 0 where it lies within two of its standard errors."""
    mean = float(differences.mean())
    return mean if abs(mean) > 2.0 * differences.std() / math.sqrt(differences.size) else 0.0


def _between_folds(folds: tuple[float, ...], variance: float) -> float:
    """The deviation of the mean over folds that rows do not explain; these give the pooled score `variance`."""
    known = np.array([value for value in folds if not math.isnan(value)])
    return math.sqrt(max(0.0, float(known.var(ddof=1)) / known.size - variance)) if known.size > 1 else 0.0


class _Draws:
    """Draws of rows out of N, whole groups (N,) where there are any, as often as weights (N,) say."""

    def __init__(self, rows: int, groups: Ints | None, weights: Floats | None = None) -> None:
        members = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
        self._order, self._sizes = np.argsort(members, kind="stable"), np.bincount(members)
        self._starts = np.cumsum(self._sizes) - self._sizes
        chances = np.bincount(members, weights=np.ones(rows) if weights is None else weights) / self._sizes
        self._edges = np.cumsum(chances) / chances.sum()
        self._rng = np.random.default_rng(0)

    def draw(self, rows: int) -> Ints:
        """Numbers of `rows` rows; the last group is cut to fit."""
        chosen = np.searchsorted(self._edges[:-1], self._rng.random(rows), side="right")
        sizes = self._sizes[chosen]
        ends = np.cumsum(sizes)
        count = int(np.searchsorted(ends, rows)) + 1
        within = np.arange(ends[count - 1]) - np.repeat(ends[:count] - sizes[:count], sizes[:count])
        drawn: Ints = self._order[np.repeat(self._starts[chosen[:count]], sizes[:count]) + within][:rows]
        return drawn


def _resampled(
    metric: Metric, targets: Targets, scores: OutOfFoldScores, rule: DecisionRule, draws: _Draws, rows: int
) -> tuple[Floats, Floats]:
    """On resamples of `rows` rows: the metric, and what it changes by where rates decide, both (R,).

    The thresholds of the rule have seen all rows, so the change is that against their own decisions.
    """
    decided = metric.takes == "decisions"
    table = scores.cross_fitted_decisions if decided else scores.cross_fitted_probabilities
    truths = np.asarray(targets)
    count = int(np.clip(_MOST_CELLS // (rows * truths.shape[1]), _FEWEST, _RESAMPLES))
    values, changes = np.empty(count), np.zeros(count)
    for number in range(count):
        drawn = draws.draw(rows)
        truth = take_rows(truths, drawn)
        values[number] = metric.function(truth, take_rows(table, drawn)).value
        if decided and rule.transfer == "rate":
            by_rate = rule.decide(take_rows(rule.out_of_fold, drawn))
            by_value = take_rows(scores.in_sample_decisions, drawn)
            if not np.array_equal(by_rate, by_value):
                changes[number] = metric.function(truth, by_rate).value - metric.function(truth, by_value).value
    known = np.isfinite(values) & np.isfinite(changes)
    return values[known], changes[known]
