"""Exact search for one threshold: cells are decided in order of descending score, and the metric's value follows."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pipeline.metrics.counts import Counts, Value
from pipeline.metrics.ranking import last_of_ties, rank
from pipeline.metrics.targets import Bits, Floats, Ints, Known, blocks

EQUALLY_GOOD = 1e-12  # values closer than this differ by rounding only
ABOVE_ONE = float(np.nextafter(1.0, 2.0))
CELLS_AT_ONCE = 1_000_000  # cells that a sweep over many units sorts together
_BLOCK_CELLS = 100_000  # cells that are filtered together: they fit into the processor's cache
_SAMPLE = 100_000  # cells whose quantiles divide a large table into slices of scores


class Sweep(NamedTuple):
    """The value of every set of decisions that a threshold can make (a threshold t decides score >= t).

    `values[i]` is the value if the i highest distinct scores are decided, from none (0) to all (D).
    """

    scores: Floats  # (D,) the distinct scores, descending
    values: Floats  # (D + 1,)


def sweep_unit(targets: Bits, scores: Floats, value: Value) -> Sweep:
    """Sweeps one threshold over one unit of known cells: targets (C,) 0/1 and scores (C,) in [0, 1]."""
    ranking = rank(targets, scores)
    counts = Counts(
        true_positives=np.append(0, ranking.true_positives),
        predicted=np.append(0, ranking.predicted),
        positives=np.asarray(ranking.positives),
        size=scores.size,
    )
    return Sweep(ranking.scores, value(counts))


def sweep_units(targets: Bits, scores: Floats, known: Known, value: Value) -> Sweep:
    """Sweeps one threshold over the mean value of U units of C cells: targets, scores and known (U, C).

    An unknown cell is in no count, and a unit without a known cell is not in the mean.

    A cell changes the mean only through its own unit, so the changes are summed in the descending order of all U x C
    scores. A unit whose value is always 0 changes nothing, so labels without positives are left out of a mean F1, as
    in the metric. The sum rounds: by 1e-11 at ten million cells.

    A large table is swept in slices of scores, of which only the part that `best_threshold` uses is kept.
    """
    mean = _RunningMean(targets, known, value)
    distinct, values = [np.empty(0)], [np.array([mean.value])]
    edges = _slice_edges(scores, known)
    for high, low in pairwise(edges.tolist()):
        swept = mean.decide(*_cells_between(targets, scores, known, low, high))
        if len(edges) > 2:
            swept = _near_best(swept, max(means.max() for means in (*values, swept.values) if means.size))
        distinct.append(swept.scores)
        values.append(swept.values)
    return Sweep(np.concatenate(distinct), np.concatenate(values))


class _RunningMean:
    """Mean value of the units while their cells are decided in order of descending score."""

    def __init__(self, targets: Bits, known: Known, value: Value) -> None:
        self._value = value
        self._positives, self._size = (np.count_nonzero(cells.view(np.bool_), axis=1) for cells in (targets, known))
        self._true_positives, self._predicted = np.zeros_like(self._positives), np.zeros_like(self._positives)
        counted = self._size > 0
        self._start = float(self._values(np.arange(len(targets)))[counted].sum())
        self._gained, self._counted = 0.0, max(1, int(np.count_nonzero(counted)))

    @property
    def value(self) -> float:
        """The mean for the cells decided so far."""
        return (self._start + self._gained) / self._counted

    def decide(self, unit: Ints, targets: Bits, scores: Floats) -> Sweep:
        """Decides further cells (n,) in order of descending score: the mean after each distinct score, (D,)."""
        order = np.argsort(-scores)
        changes, descending = self._changes(unit[order], targets[order]), scores[order]
        changes[:1] += self._gained
        gained, last = np.cumsum(changes), last_of_ties(descending)
        self._gained = float(gained[-1]) if gained.size else self._gained
        return Sweep(descending[last], (self._start + gained[last]) / self._counted)

    def _changes(self, unit: Ints, targets: Bits) -> Floats:
        """Changes (n,) in the value of each cell's unit, when the cells (n,) are decided in order."""
        by_unit = np.argsort(unit, kind="stable")
        unit, targets = unit[by_unit], targets[by_unit]
        first = np.flatnonzero(np.diff(unit, prepend=-1))  # first cell of each unit
        units, cells = unit[first], np.diff(first, append=unit.size)
        before = self._values(units)
        true_positives = np.cumsum(targets, dtype=np.int64)
        true_positives -= np.repeat(true_positives[first] - targets[first] - self._true_positives[units], cells)
        predicted = np.arange(1, unit.size + 1) - np.repeat(first - self._predicted[units], cells)
        after = self._value(Counts(true_positives, predicted, self._positives[unit], self._size[unit]))
        last = first + cells - 1
        self._true_positives[units], self._predicted[units] = true_positives[last], predicted[last]
        steps = np.diff(after, prepend=0.0)
        steps[first] = after[first] - before
        changes = np.empty_like(after)
        changes[by_unit] = steps
        return changes

    def _values(self, units: Ints) -> Floats:
        counts = self._true_positives, self._predicted, self._positives, self._size
        return self._value(Counts(*(count[units] for count in counts)))


def _slice_edges(scores: Floats, known: Known) -> Floats:
    """Scores, descending, between which there are about `CELLS_AT_ONCE` cells; quantiles of a sample."""
    slices = -(-scores.size // CELLS_AT_ONCE)
    rng = np.random.default_rng(0)
    drawn = tuple(rng.integers(0, size, _SAMPLE if slices > 1 else 0) for size in scores.shape)
    sample = np.sort(scores[drawn][known[drawn]])
    between = np.unique(sample[np.arange(1, slices) * sample.size // slices]) if sample.size else sample
    return np.concatenate([[np.inf], between[::-1], [-np.inf]])


def _cells_between(targets: Bits, scores: Floats, known: Known, low: float, high: float) -> tuple[Ints, Bits, Floats]:
    """The units, targets and scores (n,) of the known cells with low <= score < high."""
    found = []
    for units in blocks(len(scores), max(1, _BLOCK_CELLS // scores.shape[1])):
        flat = scores[units].ravel()
        cells = np.flatnonzero((flat >= low) & (flat < high) & known[units].ravel())
        found.append((units.start + cells // scores.shape[1], targets[units].ravel()[cells], flat[cells]))
    unit, bits, between = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return unit, bits, between


def _near_best(sweep: Sweep, best: float) -> Sweep:
    """The sweep without values below the best one, except those that follow a plateau: they mark its end."""
    kept = sweep.values >= best - EQUALLY_GOOD
    kept[1:] |= kept[:-1].copy()
    kept[:1] = True
    return Sweep(sweep.scores[kept], sweep.values[kept])


def best_threshold(sweep: Sweep) -> float:
    """The threshold in the middle of the best plateau.

    A plateau is a maximal interval of thresholds in [0, 1] on which the value is the best one, to 1e-12. Of
    several the widest is taken, of equally wide ones the highest. If it is best to decide nothing and a score
    is exactly 1.0, the threshold is the next number above 1.
    """
    first, last = plateaus(sweep.values)
    # values[i] belongs to the thresholds in (edges[i + 1], edges[i]]; the last interval includes 0 itself.
    edges = np.concatenate([[1.0], sweep.scores, [0.0]])
    uppers, lowers = edges[first], edges[last + 1]
    widest = int(np.argmax(uppers - lowers))
    upper, lower = float(uppers[widest]), float(lowers[widest])
    middle = (lower + upper) / 2
    if last[widest] == sweep.scores.size or middle > lower:
        return middle
    # No number lies between two neighbouring scores, nor above 1.0, which must stay undecided.
    return upper if upper > lower else ABOVE_ONE


def plateaus(values: Floats) -> tuple[Ints, Ints]:
    """First and last index of each run of values that equal the largest one, to 1e-12."""
    best = values >= values.max() - EQUALLY_GOOD
    edges = np.diff(best.astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1


def improved_threshold(scores: Floats, values: Floats, *, now: float) -> float | None:
    """The best threshold of one label; None if it is no better than the present one, `now`.

    Args:
        scores: (R,) the label's scores, descending.
        values: (R + 1,) of a metric to maximise, if the label is decided for the first 0, 1, ..., R rows.
        now: the present threshold.
    """
    last = last_of_ties(scores)
    sweep = Sweep(scores[last], values[np.append(0, last + 1)])
    if not sweep.values.max() > sweep.values[np.count_nonzero(sweep.scores >= now)] + EQUALLY_GOOD:
        return None
    return best_threshold(sweep)
