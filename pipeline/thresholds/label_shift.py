"""Label rates of a test that differ from those of training: their estimate, and weights of rows that give them."""

from __future__ import annotations

import numpy as np

from pipeline.metrics.targets import Floats, Ints, Targets, split_targets

_ROUNDS = 20  # of raking
_EDGE = 1e-3  # rates are kept this far from 0 and 1


def estimated_rates(targets: Targets, out_of_fold: Floats, test: Floats, groups: Ints | None) -> Floats:
    """The label rates (K,) of a test, from its probabilities (M, K), by the means of a label's two classes.

    (mean on the test - mean of negatives) / (mean of positives - mean of negatives), out of fold: Z. Lipton, Y. Wang,
    A. Smola, 2018. It is drawn to the rate of training, by the positive part of 1 - 9 (standard error / difference)^2:
    a difference within three standard errors is none.
    """
    bits, known = split_targets(targets)
    rates = np.empty(bits.shape[1])
    for label in range(rates.size):
        there = known[:, label]
        truth, scores = bits[there, label] == 1, out_of_fold[there, label]
        rates[label] = truth.mean() if truth.size else np.nan
        if truth.all() or not truth.any():
            continue
        high, low = scores[truth].mean(), scores[~truth].mean()
        left = scores - np.where(truth, high, low)
        alike = 1.0 if groups is None else _design_effect(left, groups[there])
        error = left.var() * alike * (1.0 / len(test) + 1.0 / truth.size)
        moved = test[:, label].mean() - scores.mean()
        if high > low and moved**2 > 9.0 * error:
            rates[label] += moved * (1.0 - 9.0 * error / moved**2) / (high - low)
    return np.clip(rates, _EDGE, 1.0 - _EDGE)


def _design_effect(values: Floats, groups: Ints) -> float:
    """The factor by which the variance of a sum grows because groups share values."""
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], weights=values)
    return max(1.0, float((sums**2).sum() / (values**2).sum()))


def raked(targets: Targets, rates: Floats) -> Floats:
    """Weights (N,) of mean 1 that give each label its rate (K,)."""
    bits, known = split_targets(targets)
    positive, negative = (bits == 1) & known, (bits == 0) & known
    weights = np.ones(len(bits))
    for _ in range(_ROUNDS):
        for label, rate in enumerate(rates):
            high, low = weights[positive[:, label]].sum(), weights[negative[:, label]].sum()
            if high > 0.0 and low > 0.0:
                weights[positive[:, label]] *= rate * (high + low) / high
                weights[negative[:, label]] *= (1.0 - rate) * (high + low) / low
    mean_one: Floats = weights / weights.mean()
    return mean_one
