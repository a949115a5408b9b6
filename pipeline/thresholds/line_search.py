"""Every threshold that can matter, tried exactly: cells enter by descending score, the metric follows."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pipeline.metrics.counts import Counts, Value
from pipeline.metrics.ranking import last_of_ties, rank
from pipeline.metrics.targets import Bits, Floats, Ints, Known, blocks

EQUALLY_GOOD = 1e-12  # values closer than this differ by rounding only
ABOVE_ONE = float(np.nextafter(1.0, 2.0))
CELLS_AT_ONCE = 1_000_000  # that a sweep over many units sorts together
_BLOCK_CELLS = 100_000  # that are looked through together: what the processor's cache holds
_SAMPLE = 100_000  # cells that tell where the parts of a large table begin


class Sweep(NamedTuple):
    """What every set of decisions that a threshold can make is worth (a threshold t decides score >= t).

    `values[i]` is the value where the i highest distinct scores are decided: 0 is nothing, D is everything.
    """

    scores: Floats  # (D,) the distinct scores, descending
    values: Floats  # (D + 1,)


def sweep_unit(targets: Bits, scores: Floats, value: Value) -> Sweep:
    """Sweep one threshold over one unit of known cells: targets (C,) 0/1 and scores (C,) in [0, 1]."""
    ranking = rank(targets, scores)
    counts = Counts(
        true_positives=np.append(0, ranking.true_positives),
        predicted=np.append(0, ranking.predicted),
        positives=np.asarray(ranking.positives),
        size=scores.size,
    )
    return Sweep(ranking.scores, value(counts))


def sweep_units(targets: Bits, scores: Floats, known: Known, value: Value) -> Sweep:
    """Sweep one threshold over the mean value of U units of C cells: targets, scores and known (U, C).

    An unknown cell is in no count, and a unit of unknown cells alone is not in the mean.

    A cell changes the mean only through its own unit, so the changes are summed in the descending order of all U x C
    scores. A unit whose value is always 0 changes nothing, which leaves labels without positives out of a mean F1 as
    the metric does. The sum rounds: by 1e-11 at ten million cells.

    Of a table that is walked through in several parts, only what `best_threshold` looks at is kept.
    """
    units = _Units(targets, known, value)
    scored, means = [np.empty(0)], [np.array([units.mean])]
    edges = _edges(scores, known)
    for high, low in pairwise(edges.tolist()):
        part = units.enter(*_cells_between(targets, scores, known, low, high))
        if len(edges) > 2:
            part = _near_the_best(part, max(best.max() for best in (*means, part.values) if best.size))
        scored.append(part.scores)
        means.append(part.values)
    return Sweep(np.concatenate(scored), np.concatenate(means))


class _Units:
    """Units on the way down the scores: what is decided of each so far, and the mean of their values."""

    def __init__(self, targets: Bits, known: Known, value: Value) -> None:
        self._value = value
        self._positives, self._size = (np.count_nonzero(cells.view(np.bool_), axis=1) for cells in (targets, known))
        self._true_positives, self._predicted = np.zeros_like(self._positives), np.zeros_like(self._positives)
        counted = self._size > 0
        self._start = float(self._values(np.arange(len(targets)))[counted].sum())
        self._gained, self._counted = 0.0, max(1, int(np.count_nonzero(counted)))

    @property
    def mean(self) -> float:
        """The mean value now."""
        return (self._start + self._gained) / self._counted

    def enter(self, unit: Ints, targets: Bits, scores: Floats) -> Sweep:
        """The mean after each distinct score of further cells (n,), which are decided from the highest down, (D,)."""
        order = np.argsort(-scores)
        changes, descending = self._changes(unit[order], targets[order]), scores[order]
        changes[:1] += self._gained
        gained, last = np.cumsum(changes), last_of_ties(descending)
        self._gained = float(gained[-1]) if gained.size else self._gained
        return Sweep(descending[last], (self._start + gained[last]) / self._counted)

    def _changes(self, unit: Ints, targets: Bits) -> Floats:
        """What each of some cells (n,) changes in the value of its unit, one after the other."""
        together = np.argsort(unit, kind="stable")
        unit, targets = unit[together], targets[together]
        first = np.flatnonzero(np.diff(unit, prepend=-1))  # where the cells of a unit begin
        entered, cells = unit[first], np.diff(first, append=unit.size)
        before = self._values(entered)
        hits = np.cumsum(targets, dtype=np.int64)
        hits -= np.repeat(hits[first] - targets[first] - self._true_positives[entered], cells)
        decided = np.arange(1, unit.size + 1) - np.repeat(first - self._predicted[entered], cells)
        after = self._value(Counts(hits, decided, self._positives[unit], self._size[unit]))
        self._true_positives[entered], self._predicted[entered] = hits[first + cells - 1], decided[first + cells - 1]
        steps = np.diff(after, prepend=0.0)
        steps[first] = after[first] - before
        changes = np.empty_like(after)
        changes[together] = steps
        return changes

    def _values(self, units: Ints) -> Floats:
        counts = self._true_positives, self._predicted, self._positives, self._size
        return self._value(Counts(*(count[units] for count in counts)))


def _edges(scores: Floats, known: Known) -> Floats:
    """Scores, descending, between which there are about `CELLS_AT_ONCE` cells, found on a sample of them."""
    parts = -(-scores.size // CELLS_AT_ONCE)
    rng = np.random.default_rng(0)
    drawn = tuple(rng.integers(0, size, _SAMPLE if parts > 1 else 0) for size in scores.shape)
    sample = np.sort(scores[drawn][known[drawn]])
    between = np.unique(sample[np.arange(1, parts) * sample.size // parts]) if sample.size else sample
    return np.concatenate([[np.inf], between[::-1], [-np.inf]])


def _cells_between(targets: Bits, scores: Floats, known: Known, low: float, high: float) -> tuple[Ints, Bits, Floats]:
    """The units, targets and scores (n,) of the known cells with low <= score < high."""
    found = []
    for units in blocks(len(scores), max(1, _BLOCK_CELLS // scores.shape[1])):
        flat = scores[units].ravel()
        cells = np.flatnonzero((flat >= low) & (flat < high) & known[units].ravel())
        found.append((units.start + cells // scores.shape[1], targets[units].ravel()[cells], flat[cells]))
    unit, bits, between = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return unit, bits, between


def _near_the_best(part: Sweep, best: float) -> Sweep:
    """A part of a sweep without what is not near the best value; where such a plateau ends must stay."""
    kept = part.values >= best - EQUALLY_GOOD
    kept[1:] |= kept[:-1].copy()
    kept[:1] = True
    return Sweep(part.scores[kept], part.values[kept])


def best_threshold(sweep: Sweep) -> float:
    """The threshold in the middle of the best plateau.

    A plateau is a maximal interval of thresholds in [0, 1] on which the value is the best one, to 1e-12. Of
    several the widest is taken, of equally wide ones the highest. Where deciding nothing is best and a score
    is exactly 1.0, the threshold is the next number above 1.
    """
    best = sweep.values >= sweep.values.max() - EQUALLY_GOOD
    turns = np.diff(best.astype(np.int8), prepend=0, append=0)
    first, last = np.flatnonzero(turns == 1), np.flatnonzero(turns == -1) - 1
    # values[i] belongs to the thresholds in (edges[i + 1], edges[i]]; the last interval holds 0 itself too.
    edges = np.concatenate([[1.0], sweep.scores, [0.0]])
    uppers, lowers = edges[first], edges[last + 1]
    widest = int(np.argmax(uppers - lowers))
    upper, lower = float(uppers[widest]), float(lowers[widest])
    middle = (lower + upper) / 2
    if last[widest] == sweep.scores.size or middle > lower:
        return middle
    # No number lies between: two neighbouring scores, or nothing but 1.0 itself, which must stay undecided.
    return upper if upper > lower else ABOVE_ONE


def better_on_line(scores: Floats, values: Floats, *, now: float) -> float | None:
    """The best threshold of one label; None where it is no better than the threshold `now`.

    Args:
        scores: (D,) the label's distinct scores, descending.
        values: (D + 1,) of a metric to be large, the label decided from above each of them, and last for all.
        now: the present threshold.
    """
    if not values.max() > values[np.count_nonzero(scores >= now)] + EQUALLY_GOOD:
        return None
    return best_threshold(Sweep(scores, values))
