"""How sure a score is: the same metric on resampled rows, or on resampled groups of rows that belong together.

Intervals are conditional on the trained models: they say what other rows would have done, not other trainings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.arrays import Floats, Ints, Targets, checked_pair
from pipeline.evaluation.counts import Counts
from pipeline.evaluation.metrics import Criterion, Metric

RESAMPLES = 1_000
_BLOCK = 50  # resamples drawn at once: what keeps their weights small
_MOST_CELLS = 200_000_000  # cells that a metric without counts may look at in all its resamples together
_FEWEST = 100


class Interval(NamedTuple):
    """The middle 95 % of a score's resamples; NaN where it has none."""

    low: float
    high: float


def resample(
    metric: Metric,
    targets: Targets,
    tables: Sequence[NDArray[Any]],
    *,
    groups: Ints | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Floats:
    """The metric of T tables on the same resamples of the rows, (T, R), NaN where it is undefined.

    A metric with a criterion is computed from counts, a block of resamples at once. Any other is evaluated
    resample by resample, and then on fewer of them where the tables are large: 2e8 cells in all, but at least 100
    resamples.

    Args:
        metric: what to compute.
        targets: (N, K), see `split_targets`.
        tables: each (N, K), decisions or probabilities as the metric takes them.
        groups: (N,) which rows are drawn together; None draws single rows.
        resamples: how many.
        seed: of the draw.
    """
    _, members = np.unique(np.arange(len(tables[0])) if groups is None else groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    if metric.criterion is None or not all(_is_counted(metric, targets, table) for table in tables):
        return _one_by_one(metric, np.asarray(targets), tables, members, resamples, rng)
    counted = [_Counted(metric.criterion, targets, table, members) for table in tables]
    blocks = []
    for first in range(0, resamples, _BLOCK):
        weights = _weights(counted[0].size, min(_BLOCK, resamples - first), rng)
        blocks.append(np.stack([one.means(weights) for one in counted]))
    return np.concatenate(blocks, axis=1)


def _is_counted(metric: Metric, targets: Targets, decisions: NDArray[Any]) -> bool:
    """Whether counts give the metric's own value; its mean may have weights that a criterion does not tell of."""
    assert metric.criterion is not None
    counted = _Counted(metric.criterion, targets, decisions, np.zeros(len(decisions), dtype=np.int64))
    value, itself = counted.means(np.ones((1, 1)))[0], metric.function(targets, decisions).value
    return bool(np.isclose(value, itself, rtol=1e-9, atol=1e-12, equal_nan=True))


def _weights(groups: int, resamples: int, rng: np.random.Generator) -> Floats:
    """How often each resample draws each group, (resamples, groups)."""
    draws = rng.integers(0, groups, (resamples, groups))
    return np.stack([np.bincount(draw, minlength=groups) for draw in draws]).astype(np.float64)


def interval(resampled: Floats) -> Interval:
    """From the 2.5th to the 97.5th percentile of resampled scores (R,), those without a value left out."""
    known = resampled[~np.isnan(resampled)]
    if known.size == 0:
        return Interval(np.nan, np.nan)
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(float(low), float(high))


class _Counted:
    """Counts per group, which a resample adds up with its weights."""

    def __init__(self, criterion: Criterion, targets: Targets, decisions: NDArray[Any], members: Ints) -> None:
        bits, known, chosen = checked_pair(targets, decisions)
        self._criterion, self.size = criterion, int(members.max()) + 1
        cells = [bits & chosen, chosen * known, bits, known]
        if criterion.unit == "row":
            counts = Counts(*(table.sum(axis=1, dtype=np.int64) for table in cells))
            counted = np.asarray(counts.size) > 0
            columns = np.stack([np.where(counted, criterion.value(counts), 0.0), counted], axis=1)
            self._sums = [_sums_of_groups(columns, members, self.size)]
        else:
            parts = [table if criterion.unit == "label" else table.sum(axis=1, keepdims=True) for table in cells]
            self._sums = [_sums_of_groups(part.astype(np.float64), members, self.size) for part in parts]

    def means(self, weights: Floats) -> Floats:
        """The metric for each row of weights (R, groups)."""
        sums = [weights @ table for table in self._sums]
        if self._criterion.unit == "row":
            return _ratio(sums[0][:, 0], sums[0][:, 1])
        counts = Counts(*sums)  # type: ignore[arg-type]  # whole numbers, as floats: a product of matrices made them
        values = self._criterion.value(counts)
        if self._criterion.unit == "table":
            return values[:, 0]
        counted = self._criterion.defined(counts)  # the other labels are left out
        return _ratio(np.where(counted, values, 0.0).sum(axis=1), counted.sum(axis=1))


def _sums_of_groups(table: Floats, members: Ints, groups: int) -> Floats:
    return np.stack([np.bincount(members, weights=column, minlength=groups) for column in table.T], axis=1)


def _ratio(part: Floats, whole: NDArray[Any]) -> Floats:
    ratio: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio


def _one_by_one(
    metric: Metric,
    targets: NDArray[Any],
    tables: Sequence[NDArray[Any]],
    members: Ints,
    resamples: int,
    rng: np.random.Generator,
) -> Floats:
    rows_of = np.split(np.argsort(members, kind="stable"), np.cumsum(np.bincount(members))[:-1])
    cells = len(tables) * targets.size
    count = int(np.clip(_MOST_CELLS // cells, min(_FEWEST, resamples), resamples))
    scores = np.empty((len(tables), count))
    for place in range(count):
        rows = np.concatenate([rows_of[group] for group in rng.integers(0, len(rows_of), len(rows_of))])
        scores[:, place] = [metric.function(targets[rows], table[rows]).value for table in tables]
    return scores
