"""What decision metrics are made of: counts over a unit (label, row or the whole table) and their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from pipeline.evaluation.arrays import Bits, Floats, Ints

Unit = Literal["label", "row", "table"]
_AXES: dict[Unit, int | None] = {"label": 0, "row": 1, "table": None}


class Counts(NamedTuple):
    """Counts of cells, one entry for each of U units; the four broadcast against each other."""

    true_positives: Ints  # predicted and positive
    predicted: Ints
    positives: Ints
    size: int  # cells in a unit


Value = Callable[[Counts], Floats]


def count(targets: Bits, decisions: Bits, unit: Unit) -> Counts:
    """Count the cells of every unit of two (N, K) tables: U = K labels, N rows, or one table of shape ()."""
    axis = _AXES[unit]
    true_positives = np.asarray(np.count_nonzero(targets & decisions, axis=axis))
    predicted = np.asarray(np.count_nonzero(decisions, axis=axis))
    positives = np.asarray(np.count_nonzero(targets, axis=axis))
    return Counts(true_positives, predicted, positives, size=targets.size // positives.size)


def f1(counts: Counts) -> Floats:
    """F1 in [0, 1]: 2 tp / (positives + predicted), 0 where both are 0."""
    return _f_beta(counts, 1)


def f2(counts: Counts) -> Floats:
    """F2 in [0, 1]: 5 tp / (4 positives + predicted), 0 where both are 0."""
    return _f_beta(counts, 4)


def accuracy(counts: Counts) -> Floats:
    """Share of the unit's cells that are decided rightly, in [0, 1]."""
    wrong = counts.positives + counts.predicted - 2 * counts.true_positives
    return np.asarray(1.0 - wrong / counts.size)


def exact_match(counts: Counts) -> Floats:
    """1.0 where every cell of the unit is decided rightly, otherwise 0.0."""
    hit_all = counts.true_positives == counts.positives
    return np.asarray(hit_all & (counts.true_positives == counts.predicted), dtype=np.float64)


def _f_beta(counts: Counts, beta_squared: int) -> Floats:
    """(1 + β²) tp / (β² positives + predicted): van Rijsbergen's F with precision and recall in counts."""
    # The denominator is an integer: below 1 it is 0, and then tp is 0 too.
    denominator = np.maximum(beta_squared * counts.positives + counts.predicted, 1)
    return np.asarray((1 + beta_squared) * counts.true_positives / denominator)
