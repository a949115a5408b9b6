"""Counts of cells per unit (a label, a row or the whole table), and the values computed from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.targets import Bits, Floats, Ints, Known

Unit = Literal["label", "row", "table"]
_AXES: dict[Unit, int | None] = {"label": 0, "row": 1, "table": None}
_TINY = np.finfo(np.float64).tiny


class Counts(NamedTuple):
    """Counts of cells for U units; the four fields broadcast against each other."""

    true_positives: Ints  # predicted and positive
    predicted: Ints
    positives: Ints
    size: Ints | int  # known cells; unknown ones are in no count


Value = Callable[[Counts], Floats]


def has_positives(counts: Counts) -> NDArray[np.bool_]:
    """Whether a unit has a known positive."""
    return np.asarray(counts.positives > 0)


def has_both(counts: Counts) -> NDArray[np.bool_]:
    """Whether a unit has a known positive and a known negative."""
    return np.asarray((counts.positives > 0) & (counts.positives < counts.size))


def count(targets: Bits, decisions: Bits, unit: Unit, known: Known | None = None) -> Counts:
    """Counts the known cells of each unit of (N, K) tables: U = K labels, N rows, or one table of shape ().

    Args:
        targets: (N, K) 0/1, 0 where unknown: the bits of `split_targets`.
        decisions: (N, K) 0/1; those of unknown cells are ignored.
        unit: what to count over.
        known: (N, K); None if all cells are known.
    """
    axis = _AXES[unit]
    known = np.broadcast_to(np.True_, targets.shape) if known is None else known
    return Counts(
        true_positives=_ones(targets & decisions, axis),
        predicted=_ones(decisions & known, axis),
        positives=_ones(targets, axis),
        size=_ones(known, axis),
    )


def _ones(cells: Bits | Known, axis: int | None) -> Ints:
    # numpy counts booleans without a copy, other types with one.
    return np.asarray(np.count_nonzero(cells.view(np.bool_), axis=axis))


def f_beta(counts: Counts, *, beta: float = 1.0, empty: float = 0.0) -> Floats:
    """F_β in [0, 1]: (1 + β²) tp / (β² positives + predicted), van Rijsbergen's F written in counts.

    `empty` is the value of a unit with neither positives nor decisions, where the formula is 0 / 0.
    """
    squared = beta * beta
    denominator = squared * counts.positives + counts.predicted
    # If the denominator is 0, tp is 0 too.
    value = (1 + squared) * counts.true_positives / np.maximum(denominator, _TINY)
    return np.where(denominator == 0, empty, value) if empty else np.asarray(value)


def f1(counts: Counts) -> Floats:
    """F1 in [0, 1]: 2 tp / (positives + predicted), 0 where both are 0."""
    return f_beta(counts)


def f2(counts: Counts) -> Floats:
    """F2 in [0, 1]: 5 tp / (4 positives + predicted), 0 where both are 0."""
    return f_beta(counts, beta=2.0)


def accuracy(counts: Counts) -> Floats:
    """Share of the unit's known cells with the right decision, in [0, 1]; 1 where no cell is known."""
    wrong = counts.positives + counts.predicted - 2 * counts.true_positives
    return np.asarray(1.0 - wrong / np.maximum(counts.size, 1))


def error_rate(counts: Counts) -> Floats:
    """Share of the unit's known cells with a wrong decision, in [0, 1]; 0 where no cell is known."""
    return np.asarray(1.0 - accuracy(counts))


def exact_match(counts: Counts) -> Floats:
    """1.0 where every known cell of the unit has the right decision, otherwise 0.0."""
    hit_all = counts.true_positives == counts.positives
    return np.asarray(hit_all & (counts.true_positives == counts.predicted), dtype=np.float64)


def matthews(counts: Counts) -> Floats:
    """Matthews correlation of targets and decisions in [-1, 1]; 0 where one of them is constant in the unit.

    (tp n − positives · predicted) / √(positives · negatives · predicted · not predicted)
    """
    # In floating point: the product of four counts overflows 64-bit integers from 50,000 cells on.
    deviation = np.sqrt(1.0 * counts.positives * (counts.size - counts.positives))
    deviation = deviation * np.sqrt(1.0 * counts.predicted * (counts.size - counts.predicted))
    covariance = 1.0 * counts.true_positives * counts.size - 1.0 * counts.positives * counts.predicted
    return np.asarray(np.clip(np.where(deviation > 0, covariance / np.maximum(deviation, _TINY), 0.0), -1.0, 1.0))
