"""From probabilities to decisions: the policies that fit thresholds, and the decision itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.errors import ConfigError, nearest
from pipeline.evaluation.arrays import Binary, Bits, Floats, checked_scores
from pipeline.evaluation.metrics import METRICS, Criterion, Metric
from pipeline.evaluation.rules import EmptyPolicy, RowRules
from pipeline.evaluation.sweep import Sweep, best_threshold, sweep_unit, sweep_units


def fit_thresholds(policy: str, metric: Metric, targets: Binary, probabilities: Floats) -> Floats:
    """One threshold for each label, (K,) in [0, nextafter(1)]; a threshold t decides probability >= t.

    Policies:
        fixed: 0.5 everywhere; nothing is fitted.
        global: the one threshold that is best for the metric itself, exactly.
        per_label: for each label alone the one that is best, exactly, for its F1 (f1_*), F2 (f2_samples) or
            accuracy (accuracy_*). f1_macro and accuracy_cells are means over labels, so nothing is better for
            them; for the other metrics it is a proxy. A label without positives, about which the data say
            nothing, takes the global threshold.

    Each threshold lies in the middle of the best plateau (see `best_threshold`). Rows left without a decision
    count as such: what `decide` may fill in for them is not part of the fit. A metric of probabilities needs
    no thresholds; for the 0/1 decisions of reports and submissions they are then fitted for f1_macro.

    Args:
        policy: a key of `POLICIES`.
        metric: what to maximise.
        targets: (N, K) 0/1.
        probabilities: (N, K) in [0, 1].

    Raises:
        ConfigError: the policy is unknown.
        ValueError: the tables are not as above, or the metric of decisions has no criterion.
    """
    if policy not in POLICIES:
        raise ConfigError(
            f"unknown threshold policy '{policy}'{nearest(policy, POLICIES)}",
            remedy=f"choose one of {', '.join(POLICIES)}",
        )
    criterion = (metric if metric.takes == "decisions" else METRICS["f1_macro"]).criterion
    if criterion is None:
        raise ValueError(f"expected a metric with a criterion, got {metric.name}")
    return POLICIES[policy](criterion, *checked_scores(targets, probabilities))


def decide(probabilities: Floats, thresholds: Floats, *, empty: EmptyPolicy = "none") -> Bits:
    """Decisions (N, K) 0/1: probability >= threshold, then the policy for rows that got none.

    The rules in full are `rules.RowRules`; `empty` and what is raised are as there.
    """
    return RowRules(empty).apply(probabilities, thresholds)


def _fixed(_: Criterion, targets: Bits, __: Floats) -> Floats:
    return np.full(targets.shape[1], 0.5)


def _global(criterion: Criterion, targets: Bits, probabilities: Floats) -> Floats:
    threshold = best_threshold(_sweep(criterion, targets, probabilities))
    return np.full(targets.shape[1], threshold)


def _sweep(criterion: Criterion, targets: Bits, probabilities: Floats) -> Sweep:
    if criterion.unit == "table":
        return sweep_unit(targets.ravel(), probabilities.ravel(), criterion.value)
    if criterion.unit == "label":
        targets, probabilities = np.ascontiguousarray(targets.T), np.ascontiguousarray(probabilities.T)
    return sweep_units(targets, probabilities, criterion.value)


def _per_label(criterion: Criterion, targets: Bits, probabilities: Floats) -> Floats:
    has_positives = targets.any(axis=0)
    # The global sweep sorts every cell, which costs more than all the labels' own: only where it is needed.
    fallback = _fixed if has_positives.all() else _global
    thresholds = fallback(criterion, targets, probabilities)
    for label in np.flatnonzero(has_positives):
        column = np.ascontiguousarray(probabilities[:, label])
        thresholds[label] = best_threshold(sweep_unit(targets[:, label], column, criterion.per_label))
    return thresholds


POLICIES: dict[str, Callable[[Criterion, Bits, Floats], Floats]] = {
    "fixed": _fixed,
    "global": _global,
    "per_label": _per_label,
}
