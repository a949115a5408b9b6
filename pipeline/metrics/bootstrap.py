"""How sure a score is: the metric on resampled rows, or on resampled groups of rows that belong together.

Intervals are conditional on the trained models: they say what other rows would have done, not other trainings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.counts import Counts, count
from pipeline.metrics.registry import Criterion, Metric
from pipeline.metrics.targets import (
    Bits,
    Floats,
    Ints,
    Known,
    Targets,
    blocks,
    checked_pair,
    take_rows,
)

RESAMPLES = 1_000
_MOST_CELLS = 200_000_000  # cells that a metric without counts may look at in all its resamples together
_FEWEST = 100
_BLOCK_DRAWS, _BLOCK_LABELS = 50, 64  # resamples and labels that are multiplied at once: what keeps both small
_EXACT = 2**24  # float32 holds every whole number up to here


class Interval(NamedTuple):
    """The middle 95 % of a score's resamples; NaN where it has none."""

    low: float
    high: float


def interval(resampled: Floats) -> Interval:
    """From the 2.5th to the 97.5th percentile of resampled scores (R,), those without a value left out."""
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
    """The metric of T tables on the same resamples of the rows, (T, R), NaN where it is undefined.

    A metric with a criterion is computed from counts. Any other is evaluated resample by resample, and then on fewer
    of them where the tables are large: 2e8 cells in all, but at least 100 resamples.

    Args:
        metric: what to compute.
        targets: (N, K), see `split_targets`.
        tables: each (N, K), decisions or probabilities as the metric takes them.
        groups: (N,) which rows are drawn together; None draws single rows.
        resamples: how many.
        seed: of the draw.
    """
    same = Resamples(metric, targets, tables=len(tables), groups=groups, resamples=resamples, seed=seed)
    scores = [same.scores(table) for table in tables]
    fewest = min(one.size for one in scores)
    return np.stack([one[:fewest] for one in scores])


class Resamples:
    """The same resamples for one table after the other, of which none but the present one need be in memory.

    Arguments are as of `resample`; `tables` is how many there will be.
    """

    def __init__(
        self, metric: Metric, targets: Targets, *, tables: int, groups: Ints | None, resamples: int, seed: int = 0
    ) -> None:
        self._metric, self._targets = metric, targets
        _, self._members = np.unique(np.arange(len(targets)) if groups is None else groups, return_inverse=True)
        self._draws = _Draws(int(self._members.max()) + 1, resamples, seed)
        self._counted = metric.criterion and _Counted(metric.criterion, targets, self._members, self._draws)
        self._fewest = int(np.clip(_MOST_CELLS // (tables * np.size(targets)), min(_FEWEST, resamples), resamples))

    def scores(self, table: NDArray[Any]) -> Floats:
        """The metric of a table (N, K) on each resample, (R,); fewer where it must be evaluated one by one."""
        if self._counted is not None and self._counted.agrees(table, self._metric.function(self._targets, table).value):
            return self._counted.scores(table)
        return self._one_by_one(table)

    def _one_by_one(self, table: NDArray[Any]) -> Floats:
        rows_of = np.split(np.argsort(self._members, kind="stable"), np.cumsum(np.bincount(self._members))[:-1])
        scores = []
        for drawn in self._draws.groups(self._fewest):
            rows = np.concatenate([rows_of[group] for group in drawn])
            scores.append(self._metric.function(take_rows(self._targets, rows), take_rows(table, rows)).value)
        return np.array(scores)


class _Draws:
    """Which of G groups each of R resamples draws, G times each."""

    def __init__(self, size: int, resamples: int, seed: int) -> None:
        self.size, self._resamples, self._seed = size, resamples, seed
        self._times: Bits | None = None

    def groups(self, resamples: int) -> Iterator[Ints]:
        """The groups (G,) that each of the first resamples draws."""
        rng = np.random.default_rng(self._seed)
        for _ in range(resamples):
            yield rng.integers(0, self.size, self.size)

    def sums(self, table: NDArray[Any]) -> Floats:
        """What each resample adds up of a table (G, C), (R, C)."""
        whole = table.dtype.kind in "iu" and self.size * int(table.max()) < _EXACT
        kind = np.float32 if whole else np.float64
        times, table = self._how_often(), table.astype(kind)
        parts = [times[draws].astype(kind) @ table for draws in blocks(len(times), _BLOCK_DRAWS)]
        return np.concatenate(parts).astype(np.float64)

    def _how_often(self) -> Bits:
        """How often each resample draws each group, (R, G).

        A byte holds it: below 256 groups because it is no more than G, above because the odds of 256 times are 1e-500.
        """
        if self._times is None:
            self._times = np.empty((self._resamples, self.size), dtype=np.uint8)
            for row, drawn in enumerate(self.groups(self._resamples)):
                self._times[row] = np.bincount(drawn, minlength=self.size)
        return self._times


class _Counted:
    """A metric by its criterion: counts of groups, which a resample adds up."""

    def __init__(self, criterion: Criterion, targets: Targets, members: Ints, draws: _Draws) -> None:
        self._criterion, self._targets = criterion, targets
        self._members, self._draws = members, draws
        self._truth: tuple[Floats, Floats] | None = None

    def agrees(self, decisions: NDArray[Any], value: float) -> bool:
        """Whether counts give the metric's own value; its mean may have weights that a criterion does not tell of."""
        bits, known, chosen = checked_pair(self._targets, decisions)
        counts = count(bits, chosen, self._criterion.unit, known)
        values = np.asarray(self._criterion.value(counts))
        if self._criterion.unit != "table":
            counted = self._is_counted(counts)
            values = _ratio(np.where(counted, values, 0.0).sum(), counted.sum())
        return bool(np.isclose(values, value, rtol=1e-9, atol=1e-12, equal_nan=True))

    def _is_counted(self, counts: Counts) -> NDArray[np.bool_]:
        """Which labels or rows the mean counts; the others are left out."""
        return self._criterion.defined(counts) if self._criterion.unit == "label" else np.asarray(counts.size) > 0

    def scores(self, decisions: NDArray[Any]) -> Floats:
        """The metric on each resample, (R,)."""
        bits, known, chosen = checked_pair(self._targets, decisions)
        if self._criterion.unit == "label":
            return self._mean_of_labels(bits, known, chosen)
        counts = count(bits, chosen, "row", known)
        if self._criterion.unit == "table":
            sums = self._draws.sums(self._of_groups(np.stack([*counts], axis=1)))
            return self._criterion.value(Counts(*sums.T))
        counted = self._is_counted(counts)
        rows = np.stack([np.where(counted, self._criterion.value(counts), 0.0), counted], axis=1)
        return _ratio(*self._draws.sums(self._of_groups(rows)).T)

    def _mean_of_labels(self, bits: Bits, known: Known, chosen: Bits) -> Floats:
        if self._truth is None:
            self._truth = self._by_label(bits, known), self._by_label(known, known)
        # Whole numbers as floats, as a product of matrices gives them.
        counts = Counts(self._by_label(bits, chosen), self._by_label(chosen, known), *self._truth)  # type: ignore[arg-type]
        counted = self._is_counted(counts)
        return _ratio(np.where(counted, self._criterion.value(counts), 0.0).sum(axis=1), counted.sum(axis=1))

    def _by_label(self, cells: NDArray[Any], others: NDArray[Any]) -> Floats:
        """How many cells of each label are 1 in both tables (N, K), for each resample, (R, K)."""
        labels = blocks(cells.shape[1], _BLOCK_LABELS)
        both = (self._of_groups(cells[:, block] & others[:, block]) for block in labels)
        return np.concatenate([self._draws.sums(sums) for sums in both], axis=1)

    def _of_groups(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Sums (G, C) over each group's rows (N, C), whole numbers where the rows hold these."""
        sums = np.empty((self._draws.size, rows.shape[1]), np.float64 if rows.dtype.kind == "f" else np.int32)
        for place, column in enumerate(rows.T):
            sums[:, place] = np.bincount(self._members, weights=column, minlength=len(sums))
        return sums


def _ratio(part: Floats, whole: NDArray[Any]) -> Floats:
    ratio: Floats = np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)
    return ratio
