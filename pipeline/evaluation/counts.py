"""What decision metrics are made of: counts over a unit (label, row or the whole table) and their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from pipeline.evaluation.arrays import Bits, Floats, Ints, Known

Unit = Literal["label", "row", "table"]
_AXES: dict[Unit, int | None] = {"label": 0, "row": 1, "table": None}


class Counts(NamedTuple):
    """Counts of cells, one entry for each of U units; the four broadcast against each other."""

    true_positives: Ints  # predicted and positive
    predicted: Ints
    positives: Ints
    size: Ints | int  # known cells in a unit; the others are counted nowhere


Value = Callable[[Counts], Floats]


def count(targets: Bits, decisions: Bits, unit: Unit, known: Known | None = None) -> Counts:
    """Count the known cells of every unit of (N, K) tables: U = K labels, N rows, or one table of shape ().

    Args:
        targets: 0/1, and 0 where unknown, as `split_targets` gives them.
        decisions: 0/1; those of unknown cells are not looked at.
        unit: what to count over.
        known: which cells count; all if None.
    """
    axis = _AXES[unit]
    known = np.ones(targets.shape, np.bool_) if known is None else known
    return Counts(
        true_positives=np.asarray(np.count_nonzero(targets & decisions, axis=axis)),
        predicted=np.asarray(np.count_nonzero(decisions & known, axis=axis)),
        positives=np.asarray(np.count_nonzero(targets, axis=axis)),
        size=np.asarray(np.count_nonzero(known, axis=axis)),
    )


def f1(counts: Counts) -> Floats:
    """F1 in [0, 1]: 2 tp / (positives + predicted), 0 where both are 0."""
    return _f_beta(counts, 1)


def f2(counts: Counts) -> Floats:
    """F2 in [0, 1]: 5 tp / (4 positives + predicted), 0 where both are 0."""
    return _f_beta(counts, 4)


def accuracy(counts: Counts) -> Floats:
    """Share of the unit's known cells that are decided rightly, in [0, 1]; 1 where none is known."""
    wrong = counts.positives + counts.predicted - 2 * counts.true_positives
    return np.asarray(1.0 - wrong / np.maximum(counts.size, 1))


def exact_match(counts: Counts) -> Floats:
    """1.0 where every known cell of the unit is decided rightly, otherwise 0.0."""
    hit_all = counts.true_positives == counts.positives
    return np.asarray(hit_all & (counts.true_positives == counts.predicted), dtype=np.float64)


def _f_beta(counts: Counts, beta_squared: int) -> Floats:
    """(1 + β²) tp / (β² positives + predicted): van Rijsbergen's F with precision and recall in counts."""
    # The denominator is an integer: below 1 it is 0, and then tp is 0 too.
    denominator = np.maximum(beta_squared * counts.positives + counts.predicted, 1)
    return np.asarray((1 + beta_squared) * counts.true_positives / denominator)
