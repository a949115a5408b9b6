"""From probabilities to decisions: the policies that fit thresholds, and the decision itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, nearest
from pipeline.metrics.counts import Value, accuracy
from pipeline.metrics.registry import METRICS, Criterion, Metric
from pipeline.metrics.targets import Bits, Floats, Targets
from pipeline.thresholds.coordinate_ascent import ascend, best_shared
from pipeline.thresholds.dinkelbach import best_for_micro_f, beta_squared
from pipeline.thresholds.line_search import Sweep, best_threshold, sweep_unit, sweep_units
from pipeline.thresholds.row_rules import EmptyPolicy, RowRules
from pipeline.thresholds.threshold_problem import ThresholdProblem, threshold_problem

STRENGTH = 30.0  # of the pull towards the global threshold, in positives
_FEWEST_LOGIT = 1e-6  # probabilities are kept this far from 0 and 1 before a logit is taken


def fit_thresholds(
    policy: str, metric: Metric, targets: Targets, probabilities: Floats, *, rules: RowRules | None = None
) -> Floats:
    """One threshold for each label, (K,) in [0, nextafter(1)]; a threshold t decides probability >= t.

    Policies:
        fixed: 0.5 everywhere; nothing is fitted.
        global: the one threshold that is best for the metric itself.
        per_label: the thresholds that are best for the metric itself. For a mean over labels and for the
            accuracy of cells each label's own sweep finds them, for an F over all cells Dinkelbach's method
            (`best_for_micro_f`): both exact. For all other metrics, and for any metric with row rules, they
            are a local optimum: coordinate ascent from the better of the global threshold and a first guess
            (`coordinate.ascend`). A label without positives, about which the data say nothing, keeps the
            global threshold.
        shrunk: in logits, t = (n t_per_label + m t_global) / (n + m), n the label's positives, m = 30.
        prevalence: as many cells of a label are decided as are positive, up to ties; the metric is not asked.

    `auto`, `optuna` and the choice of m need parts of rows: see `choice.Fits`. Each threshold lies in the middle
    of the best plateau (see `best_threshold`). A metric of probabilities needs no thresholds; for the 0/1
    decisions of reports and submissions they are then fitted for f1_macro. Unknown cells take no part.

    Args:
        policy: a key of `POLICIES`.
        metric: what to make best.
        targets: (N, K), see `split_targets`.
        probabilities: (N, K) in [0, 1].
        rules: what is applied to the rows after the thresholds; part of the objective.

    Raises:
        ConfigError: the policy is unknown.
        ValueError: the tables are not as above.
    """
    if policy not in POLICIES:
        raise ConfigError(
            f"unknown threshold policy '{policy}'{nearest(policy, POLICIES)}",
            remedy=f"choose one of {', '.join(POLICIES)}",
        )
    return POLICIES[policy](threshold_problem(metric, targets, probabilities, rules))


def decide(probabilities: Floats, thresholds: Floats, *, empty: EmptyPolicy = "none") -> Bits:
    """Decisions (N, K) 0/1: probability >= threshold, then the policy for rows that got none.

    The rules in full are `rules.RowRules`; `empty` and what is raised are as there.
    """
    return RowRules(empty).apply(probabilities, thresholds)


def shrink(per_label: Floats, shared: Floats, positives: NDArray[np.int64], strength: float) -> Floats:
    """Thresholds between a label's own and the shared ones, all (K,): the mean of their logits.

    A label's own counts with its positives, the shared one with `strength` positives. A threshold above 1, which
    decides nothing, takes part as the highest probability that has a logit here, 1 − 1e-6.
    """
    own, common = (_logit(np.clip(t, _FEWEST_LOGIT, 1.0 - _FEWEST_LOGIT)) for t in (per_label, shared))
    mixed = (positives * own + strength * common) / (positives + strength)
    return np.asarray(1.0 / (1.0 + np.exp(-mixed)))


def _logit(probabilities: Floats) -> Floats:
    return np.asarray(np.log(probabilities / (1.0 - probabilities)))


def _fixed(problem: ThresholdProblem) -> Floats:
    return np.full(problem.labels, 0.5)


def _global(problem: ThresholdProblem) -> Floats:
    criterion = problem.metric.criterion
    if criterion is None or not problem.rules.trivial:
        threshold = best_shared(problem.alone())
    else:
        threshold = best_threshold(_sweep(criterion, problem))
    return np.full(problem.labels, threshold)


def _sweep(criterion: Criterion, problem: ThresholdProblem) -> Sweep:
    known, value = problem.known, _to_be_large(criterion.value, problem.metric)
    if criterion.unit == "table":
        return sweep_unit(problem.bits[known], problem.probabilities[known], value)
    if criterion.unit == "label":
        return sweep_units(problem.bits.T, problem.probabilities.T, known.T, value)
    return sweep_units(problem.bits, np.ascontiguousarray(problem.probabilities), known, value)


def _to_be_large(value: Value, metric: Metric) -> Value:
    return value if metric.greater_is_better else lambda counts: -value(counts)


def _per_label(problem: ThresholdProblem) -> Floats:
    guess = _first_guess(problem)
    criterion = problem.metric.criterion
    if criterion is not None and problem.rules.trivial and _is_exact(criterion):
        return guess
    shared, own = _global(problem), problem.alone()
    return ascend(own, max(shared, guess, key=own.value))


def _is_exact(criterion: Criterion) -> bool:
    """Whether the first guess is the best there is: labels add up, or Dinkelbach has solved it."""
    return criterion.unit == "label" or (
        criterion.unit == "table" and (criterion.value is accuracy or beta_squared(criterion.value) is not None)
    )


def _first_guess(problem: ThresholdProblem) -> Floats:
    """Without rules: each label best for itself, or all best for an F over all cells."""
    criterion = problem.metric.criterion or METRICS["f1_macro"].criterion
    assert criterion is not None
    known, weight = problem.positives > 0, None
    # The global sweep sorts every cell, which costs more than all the labels' own: only where it is needed.
    thresholds = np.full(problem.labels, 0.5) if known.all() else _global(problem)
    if criterion.unit == "table":
        weight = beta_squared(criterion.value)
    if weight is not None:
        return np.where(known, best_for_micro_f(problem, weight), thresholds)
    value = criterion.per_label
    if problem.metric.criterion is not None:
        value = _to_be_large(value, problem.metric)
    for label in np.flatnonzero(known):
        there = problem.known[:, label]
        sweep = sweep_unit(problem.bits[there, label], problem.probabilities[there, label], value)
        thresholds[label] = best_threshold(sweep)
    return thresholds


def _shrunk(problem: ThresholdProblem) -> Floats:
    return shrink(_per_label(problem), _global(problem), problem.positives, STRENGTH)


def _prevalence(problem: ThresholdProblem) -> Floats:
    positives = problem.positives
    thresholds = np.full(problem.labels, 0.5) if positives.all() else _global(problem)
    for label in np.flatnonzero(positives):
        scores = problem.probabilities[problem.known[:, label], label]
        thresholds[label] = quantile_threshold(scores, int(positives[label]))
    return thresholds


def quantile_threshold(scores: Floats, count: int) -> float:
    """The threshold between the `count`-th highest of scores (C,) and the next; ties may make it decide more."""
    edges = np.concatenate([[1.0], np.sort(scores)[::-1], [0.0]])
    middle = float(edges[count] + edges[count + 1]) / 2
    return middle if middle > edges[count + 1] or count == scores.size else float(edges[count])


POLICIES: dict[str, Callable[[ThresholdProblem], Floats]] = {
    "fixed": _fixed,
    "global": _global,
    "per_label": _per_label,
    "shrunk": _shrunk,
    "prevalence": _prevalence,
}
