"""Exact thresholds for an F over all cells, by Dinkelbach's method: F is a ratio of sums over labels."""

from __future__ import annotations

import numpy as np

from pipeline.metrics.counts import Counts, Value
from pipeline.metrics.targets import Bits, Floats
from pipeline.thresholds.fitting.line_search import best_threshold, sweep_unit
from pipeline.thresholds.threshold_problem import ThresholdProblem

_STEPS = 50  # the method converges superlinearly, usually in five steps
_PROBES = np.array([(1, 1, 2, 9), (3, 4, 7, 30), (2, 9, 2, 11), (0, 3, 4, 20), (5, 5, 6, 12)]).T


def beta_squared(value: Value) -> float | None:
    """β² if `value` is (1 + β²) tp / (β² positives + predicted), else None; tests five probes."""
    true_positives, predicted, positives, size = _PROBES
    values = value(Counts(true_positives, predicted, positives, size))
    if not 0.5 < values[0] < 1.0:  # the first probe has recall 1/2 and precision 1, and F lies between them
        return None
    weight = float((1.0 - values[0]) / (2.0 * values[0] - 1.0))
    expected = (1.0 + weight) * true_positives / (weight * positives + predicted)
    return weight if np.allclose(values, expected, rtol=1e-9, atol=0) else None


def micro_f_thresholds(problem: ThresholdProblem, weight: float) -> Floats:
    """The thresholds (K,) with the highest F_β over all known cells, β² = `weight`.

    F = N / D with N = (1 + β²) Σ tp and D = Σ (β² positives + predicted). For a guess λ of F, N − λ D is a sum
    over labels, so a sweep of each label finds its best threshold; λ becomes the ratio reached, until it no longer
    grows (W. Dinkelbach, On nonlinear fractional programming, Management Science 13, 1967).
    """
    columns = [
        (problem.bits[known, label], problem.probabilities[known, label]) for label, known in enumerate(problem.known.T)
    ]
    ratio, thresholds = 0.0, np.full(problem.labels, 0.5)
    for _ in range(_STEPS):

        def gain(counts: Counts, ratio: float = ratio) -> Floats:
            return np.asarray((1.0 + weight) * counts.true_positives - ratio * counts.predicted)

        thresholds = np.array([best_threshold(sweep_unit(bits, scores, gain)) for bits, scores in columns])
        reached = _f(columns, thresholds, weight)
        if reached <= ratio + 1e-15:
            break
        ratio = reached
    return thresholds


def _f(columns: list[tuple[Bits, Floats]], thresholds: Floats, weight: float) -> float:
    decided = [scores >= threshold for (_, scores), threshold in zip(columns, thresholds, strict=True)]
    true_positives = sum(int(bits[chosen].sum()) for (bits, _), chosen in zip(columns, decided, strict=True))
    positives = sum(int(bits.sum()) for bits, _ in columns)
    whole = weight * positives + sum(int(chosen.sum()) for chosen in decided)
    return (1.0 + weight) * true_positives / whole if whole else 0.0
