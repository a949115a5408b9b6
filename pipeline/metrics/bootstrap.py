"""Bootstrap of a metric: its value on resampled rows, or on resampled groups of rows, and a 95 % interval.

The intervals are conditional on the trained models: they cover other rows, not other trainings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.counts import Counts, count
from pipeline.metrics.means import ratio
from pipeline.metrics.registry import Criterion, Metric
from pipeline.metrics.targets import Bits, Floats, Ints, Known, Targets, blocks, checked_pair, take_rows

RESAMPLES = 1_000
_MOST_CELLS = 200_000_000  # in all resamples together, of a metric that is not computed from counts
_FEWEST = 100
_BLOCK_DRAWS, _BLOCK_LABELS = 50, 64  # resamples and labels in one product of matrices, which bounds the memory
_EXACT = 2**24  # float32 holds every integer up to here


class Interval(NamedTuple):
    """The middle 95 % of the resampled scores; NaN if no resample has a score."""

    low: float
    high: float


def interval(resampled: Floats) -> Interval:
    """The 2.5th and the 97.5th percentile of resampled scores (R,), NaN left out."""
    known = resampled[~np.isnan(resampled)]
    if known.size == 0:
        return Interval(np.nan, np.nan)
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(float(low), float(high))


def resample(
    metric: Metric,
    targets: Targets,
    tables: Sequence[NDArray[Any]],
    *,
    groups: Ints | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Floats:
    """The metric of T tables on the same R resamples of the rows, (T, R); NaN where it is undefined.

    A metric with a criterion is computed from counts. Any other is evaluated on each resample; for large tables
    on fewer of them: at most 2e8 cells in all, but at least 100 resamples.

    Args:
        metric: what to compute.
        targets: (N, K), see `split_targets`.
        tables: each (N, K), decisions or probabilities as the metric takes them.
        groups: (N,) rows of one group are drawn together; None draws single rows.
        resamples: the number R.
        seed: seed of the draws.
    """
    shared = Resamples(metric, targets, tables=len(tables), groups=groups, resamples=resamples, seed=seed)
    scores = [shared.scores(table) for table in tables]
    fewest = min(values.size for values in scores)
    return np.stack([values[:fewest] for values in scores])


class Resamples:
    """Resamples that several tables share, so that only one table need be in memory at a time.

    The arguments are those of `resample`; `tables` is the number of tables to come.
    """

    def __init__(
        self, metric: Metric, targets: Targets, *, tables: int, groups: Ints | None, resamples: int, seed: int = 0
    ) -> None:
        self._metric, self._targets = metric, targets
        _, self._group_of = np.unique(np.arange(len(targets)) if groups is None else groups, return_inverse=True)
        self._draws = _Draws(int(self._group_of.max()) + 1, resamples, seed)
        self._counted = metric.criterion and _CountedMetric(metric.criterion, targets, self._group_of, self._draws)
        self._fewest = int(np.clip(_MOST_CELLS // (tables * np.size(targets)), min(_FEWEST, resamples), resamples))

    def scores(self, table: NDArray[Any]) -> Floats:
        """The metric of a table (N, K) on each resample, (R,); on fewer if each needs an evaluation of its own."""
        counted = self._counted
        if counted is not None and counted.matches(table, self._metric.function(self._targets, table).value):
            return counted.scores(table)
        return self._evaluated(table)

    def _evaluated(self, table: NDArray[Any]) -> Floats:
        rows_of = np.split(np.argsort(self._group_of, kind="stable"), np.cumsum(np.bincount(self._group_of))[:-1])
        scores = []
        for drawn in self._draws.groups(self._fewest):
            rows = np.concatenate([rows_of[group] for group in drawn])
            scores.append(self._metric.function(take_rows(self._targets, rows), take_rows(table, rows)).value)
        return np.array(scores)


class _Draws:
    """R resamples, each of which draws G of G groups with replacement."""

    def __init__(self, size: int, resamples: int, seed: int) -> None:
        self.size, self._resamples, self._seed = size, resamples, seed
        self._multiplicities: Bits | None = None

    def groups(self, resamples: int) -> Iterator[Ints]:
        """Yields the groups (G,) of each of the first `resamples` resamples."""
        rng = np.random.default_rng(self._seed)
        for _ in range(resamples):
            yield rng.integers(0, self.size, self.size)

    def sums(self, table: NDArray[Any]) -> Floats:
        """Sums (R, C) of a table (G, C) over the groups of each resample."""
        exact = table.dtype.kind in "iu" and self.size * int(table.max()) < _EXACT
        dtype = np.float32 if exact else np.float64
        multiplicities, table = self._drawn(), table.astype(dtype)
        sums = [multiplicities[draws].astype(dtype) @ table for draws in blocks(len(multiplicities), _BLOCK_DRAWS)]
        return np.concatenate(sums).astype(np.float64)

    def _drawn(self) -> Bits:
        """The number of times that each resample draws each group, (R, G).

        A byte is enough: with fewer than 256 groups the number is below 256, with more the odds of 256 are 1e-500.
        """
        if self._multiplicities is None:
            self._multiplicities = np.empty((self._resamples, self.size), dtype=np.uint8)
            for row, drawn in enumerate(self.groups(self._resamples)):
                self._multiplicities[row] = np.bincount(drawn, minlength=self.size)
        return self._multiplicities


class _CountedMetric:
    """A metric computed from its criterion: a resample adds up the counts of its groups."""

    def __init__(self, criterion: Criterion, targets: Targets, group_of: Ints, draws: _Draws) -> None:
        self._criterion, self._targets = criterion, targets
        self._group_of, self._draws = group_of, draws
        self._target_counts: tuple[Floats, Floats] | None = None

    def matches(self, decisions: NDArray[Any], value: float) -> bool:
        """Whether counts give the metric's own `value`; they do not where its mean has weights of its own."""
        bits, known, chosen = checked_pair(self._targets, decisions)
        counts = count(bits, chosen, self._criterion.unit, known)
        values = np.asarray(self._criterion.value(counts))
        if self._criterion.unit != "table":
            counted = self._is_counted(counts)
            values = ratio(np.where(counted, values, 0.0).sum(), counted.sum())
        return bool(np.isclose(values, value, rtol=1e-9, atol=1e-12, equal_nan=True))

    def _is_counted(self, counts: Counts) -> NDArray[np.bool_]:
        """Mask of the labels or rows that are in the mean."""
        return self._criterion.defined(counts) if self._criterion.unit == "label" else np.asarray(counts.size) > 0

    def scores(self, decisions: NDArray[Any]) -> Floats:
        """The metric on each resample, (R,)."""
        bits, known, chosen = checked_pair(self._targets, decisions)
        if self._criterion.unit == "label":
            return self._mean_of_labels(bits, known, chosen)
        counts = count(bits, chosen, "row", known)
        if self._criterion.unit == "table":
            sums = self._draws.sums(self._group_sums(np.stack([*counts], axis=1)))
            return self._criterion.value(Counts(*sums.T))
        counted = self._is_counted(counts)
        rows = np.stack([np.where(counted, self._criterion.value(counts), 0.0), counted], axis=1)
        return ratio(*self._draws.sums(self._group_sums(rows)).T)

    def _mean_of_labels(self, bits: Bits, known: Known, chosen: Bits) -> Floats:
        if self._target_counts is None:
            self._target_counts = self._both_by_label(bits, known), self._both_by_label(known, known)
        true_positives, predicted = self._both_by_label(bits, chosen), self._both_by_label(chosen, known)
        counts = Counts(true_positives, predicted, *self._target_counts)  # type: ignore[arg-type]  # integers as floats
        counted = self._is_counted(counts)
        return ratio(np.where(counted, self._criterion.value(counts), 0.0).sum(axis=1), counted.sum(axis=1))

    def _both_by_label(self, cells: NDArray[Any], others: NDArray[Any]) -> Floats:
        """Number of cells per resample and label, (R, K), that are 1 in both tables (N, K)."""
        labels = blocks(cells.shape[1], _BLOCK_LABELS)
        both = (self._group_sums(cells[:, block] & others[:, block]) for block in labels)
        return np.concatenate([self._draws.sums(sums) for sums in both], axis=1)

    def _group_sums(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Sums (G, C) over the rows (N, C) of each group, integers unless the rows are floats."""
        sums = np.empty((self._draws.size, rows.shape[1]), np.float64 if rows.dtype.kind == "f" else np.int32)
        for place, column in enumerate(rows.T):
            sums[:, place] = np.bincount(self._group_of, weights=column, minlength=len(sums))
        return sums
