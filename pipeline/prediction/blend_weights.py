"""Weights of the members of a blend, which maximise the correlation of the blend with the targets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from pipeline.metrics.targets import Bits, Floats, Ints

Sums = NDArray[np.float64]
WEIGHTS = ("equal", "greedy", "simplex", "per_label")

STRENGTH = 20.0  # positives per member that equal weights are worth
_BAGS, _PICKS = 20, 30  # of the greedy selection


def product_sums(scaled: NDArray[Any], bits: Bits, known: NDArray[np.bool_], part_of: Ints) -> Sums:
    """Sums of products of 1, target and M members over the known cells of a label in each part, (P, M + 2, M + 2)."""
    table = np.concatenate([np.ones((1, bits.size)), bits[None], scaled - scaled.mean(axis=1, keepdims=True)])
    cells = [table[:, known & (part_of == part)] for part in range(int(part_of.max()) + 1)]
    return np.stack([own @ own.T for own in cells])


def fit_weights(kind: str, sums: Sums) -> Floats:
    """Weights (K, M) by `product_sums` (K, M + 2, M + 2), those of the rows that may be seen.

    Weights maximise the correlation of the blend with the target: it is the same for any scale and offset of a label,
    as ranking metrics and fitted thresholds are. Shared weights do so for all labels, each blend at unit variance.
    Weights fitted on n positives are shrunk to (n · fitted + s · equal) / (n + s), s = 20 per member; those of a label
    towards the shared ones.
    """
    labels, members = len(sums), sums.shape[1] - 2
    equal = np.full(members, 1.0 / members)
    count = np.maximum(sums[:, 0, 0], 1.0)
    means = sums[:, 0] / count[:, None]
    moments = sums / count[:, None, None] - means[:, :, None] * means[:, None]
    spread, along, variance = moments[:, 2:, 2:], moments[:, 1, 2:], moments[:, 1, 1]
    scale = spread.mean(axis=(1, 2))  # the variance of the equal mean
    usable = np.flatnonzero((variance > 0) & (scale > 1e-12))
    if kind == "equal" or members == 1 or not usable.size:
        return np.tile(equal, (labels, 1))
    positives = np.minimum(sums[:, 0, 1], sums[:, 0, 0] - sums[:, 0, 1])
    fitted = (_greedy if kind == "greedy" else _simplex)(
        (spread[usable] / scale[usable, None, None]).mean(axis=0),
        (along[usable] / np.sqrt(scale * variance)[usable, None]).mean(axis=0),
    )
    strength = STRENGTH * members
    shared = (positives.sum() * fitted + strength * equal) / (positives.sum() + strength)
    weights = np.tile(shared, (labels, 1))
    for label in usable if kind == "per_label" else ():
        own = _simplex(spread[label] / scale[label], along[label])
        weights[label] = (positives[label] * own + strength * shared) / (positives[label] + strength)
    return weights


def _simplex(spread: Floats, along: Floats) -> Floats:
    """Weights (M,) >= 0 of sum 1 that maximise along·w / √(w·spread·w), by non-negative least squares."""
    lower = np.linalg.cholesky(spread + 1e-6 * np.trace(spread) * np.eye(len(spread)))
    found = nnls(lower.T, solve_triangular(lower, along, lower=True))[0]
    return np.asarray(found / found.sum()) if found.sum() > 0 else np.full(len(along), 1.0 / len(along))


def _greedy(spread: Floats, along: Floats) -> Floats:
    """The same by greedy selection with replacement, the mean over 20 random halves of the members.

    R. Caruana et al., Ensemble selection from libraries of models, 2004.
    """
    rng, members = np.random.default_rng(0), len(along)
    total = np.zeros(members)
    for _ in range(_BAGS):
        bag = rng.permutation(members)[: max(2, (members + 1) // 2)]
        picks = np.zeros(members)
        for _ in range(_PICKS):
            with_picks = spread @ picks
            variance = picks @ with_picks + 2.0 * with_picks[bag] + spread[bag, bag]
            picks[bag[np.argmax((along @ picks + along[bag]) / np.sqrt(np.maximum(variance, 1e-12)))]] += 1.0
        total += picks
    return np.asarray(total / total.sum())
