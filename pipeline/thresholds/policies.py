"""Policies: ways to fit one threshold for each label; a threshold t decides probability >= t.

fixed: 0.5 for all labels; nothing is fitted.
global: the one threshold that is best for the metric.
per_label: the thresholds that are best for the metric. They are exact without row rules for a mean over labels and
    for the accuracy of cells, by a sweep of each label, and for an F over all cells, by Dinkelbach's method. For all
    other metrics, and with row rules, they are a local optimum: coordinate ascent from the better one of the global
    threshold and the exact thresholds of a similar metric. A label without positives keeps the global threshold.
prevalence: a label is predicted as often as it is positive, up to ties; the metric is not used.

`auto`, `shrunk` and `optuna` choose by folds: see `policy_selection`. Each threshold lies in the middle of the best
plateau (see `best_threshold`). A metric of probabilities needs no thresholds; for the 0/1 decisions of reports and
submissions they are fitted for f1_macro. Unknown cells are ignored.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.counts import Value, accuracy
from pipeline.metrics.registry import METRICS, Criterion, Metric
from pipeline.metrics.targets import Floats
from pipeline.thresholds.fitting.coordinate_ascent import ascend, best_shared
from pipeline.thresholds.fitting.dinkelbach import beta_squared, micro_f_thresholds
from pipeline.thresholds.fitting.line_search import Sweep, best_threshold, sweep_unit, sweep_units
from pipeline.thresholds.threshold_problem import ThresholdProblem

_CLIP = 1e-6  # smallest distance of a threshold from 0 and 1, where its logit is infinite


def shrink(per_label: Floats, shared: Floats, positives: NDArray[np.int64], strength: float) -> Floats:
    """Weighted means (K,), in logits, of each label's own threshold and the shared one, all (K,).

    A label's own threshold has its positives as the weight, the shared one has `strength`. A threshold above 1,
    which decides nothing, takes part as 1 − 1e-6.
    """
    own, common = threshold_logits(per_label), threshold_logits(shared)
    return from_logits((positives * own + strength * common) / (positives + strength))


def threshold_logits(thresholds: Floats) -> Floats:
    """Logits of thresholds, which are clipped to [1e-6, 1 − 1e-6]."""
    clipped = np.clip(thresholds, _CLIP, 1.0 - _CLIP)
    return np.asarray(np.log(clipped / (1.0 - clipped)))


def from_logits(logits: Floats) -> Floats:
    """σ(logits)."""
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def _fixed(problem: ThresholdProblem) -> Floats:
    return np.full(problem.labels, 0.5)


def _global(problem: ThresholdProblem) -> Floats:
    criterion = problem.metric.criterion
    if criterion is None or not problem.rules.trivial:
        threshold = best_shared(problem.unmasked())
    else:
        threshold = best_threshold(_sweep(criterion, problem))
    return np.full(problem.labels, threshold)


def _sweep(criterion: Criterion, problem: ThresholdProblem) -> Sweep:
    known, value = problem.known, _maximised(criterion.value, problem.metric)
    if criterion.unit == "table":
        return sweep_unit(problem.bits[known], problem.probabilities[known], value)
    if criterion.unit == "label":
        return sweep_units(problem.bits.T, problem.probabilities.T, known.T, value)
    return sweep_units(problem.bits, np.ascontiguousarray(problem.probabilities), known, value)


def _maximised(value: Value, metric: Metric) -> Value:
    return value if metric.greater_is_better else lambda counts: -value(counts)


def _per_label(problem: ThresholdProblem) -> Floats:
    start = _without_rules(problem)
    criterion = problem.metric.criterion
    if criterion is not None and problem.rules.trivial and _is_exact(criterion):
        return start
    shared, unmasked = _global(problem), problem.unmasked()
    return ascend(unmasked, max(shared, start, key=unmasked.value))


def _is_exact(criterion: Criterion) -> bool:
    """Whether `_without_rules` finds the best thresholds: labels are independent, or Dinkelbach's method applies."""
    return criterion.unit == "label" or (
        criterion.unit == "table" and (criterion.value is accuracy or beta_squared(criterion.value) is not None)
    )


def _without_rules(problem: ThresholdProblem) -> Floats:
    """Thresholds (K,) that ignore row rules: the best for an F over all cells, else the best of each label alone."""
    criterion = problem.metric.criterion or METRICS["f1_macro"].criterion
    assert criterion is not None
    has_positives, weight = problem.positives > 0, None
    # The global sweep sorts all cells, which costs more than the sweeps of all labels: only where it is needed.
    thresholds = np.full(problem.labels, 0.5) if has_positives.all() else _global(problem)
    if criterion.unit == "table":
        weight = beta_squared(criterion.value)
    if weight is not None:
        return np.where(has_positives, micro_f_thresholds(problem, weight), thresholds)
    value = criterion.per_label
    if problem.metric.criterion is not None:
        value = _maximised(value, problem.metric)
    for label in np.flatnonzero(has_positives):
        rows = problem.known[:, label]
        sweep = sweep_unit(problem.bits[rows, label], problem.probabilities[rows, label], value)
        thresholds[label] = best_threshold(sweep)
    return thresholds


def _prevalence(problem: ThresholdProblem) -> Floats:
    positives = problem.positives
    thresholds = np.full(problem.labels, 0.5) if positives.all() else _global(problem)
    for label in np.flatnonzero(positives):
        scores = problem.probabilities[problem.known[:, label], label]
        thresholds[label] = quantile_threshold(scores, int(positives[label]))
    return thresholds


def quantile_threshold(scores: Floats, count: int) -> float:
    """The threshold between the `count`-th highest of scores (C,) and the next; with ties it decides more."""
    edges = np.concatenate([[1.0], np.sort(scores)[::-1], [0.0]])
    middle = float(edges[count] + edges[count + 1]) / 2
    return middle if middle > edges[count + 1] or count == scores.size else float(edges[count])


POLICIES: dict[str, Callable[[ThresholdProblem], Floats]] = {
    "fixed": _fixed,
    "global": _global,
    "per_label": _per_label,
    "prevalence": _prevalence,
}
"""Functions that return thresholds (K,) in [0, nextafter(1)]."""
