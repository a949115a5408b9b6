"""Every threshold that can matter, tried exactly: cells enter by descending score, the metric follows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.evaluation.arrays import Bits, Floats, Known
from pipeline.evaluation.counts import Counts, Value
from pipeline.evaluation.ranking import last_of_ties, rank

EQUALLY_GOOD = 1e-12  # values closer than this differ by rounding only
ABOVE_ONE = float(np.nextafter(1.0, 2.0))
BLOCK_CELLS = 100_000  # cells worked on at once: what the processor's cache holds


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

    A cell changes the mean only through its own unit. So the changes are found unit by unit, then summed in
    the descending order of all U x C scores. A unit whose value is always 0 changes nothing, which leaves
    labels without positives out of a mean F1 as the metric does. The sum rounds: by 1e-11 at ten million cells.
    """
    units, cells = scores.shape
    descending, changes = np.empty_like(scores), np.empty_like(scores)
    start, step = 0.0, max(1, BLOCK_CELLS // cells)
    counted: Known = np.asarray(known.any(axis=1))
    for first in range(0, units, step):
        block = slice(first, first + step)
        descending[block], before, after = _values_in_order(targets[block], scores[block], known[block], value)
        changes[block] = np.where(counted[block, None], np.diff(after, prepend=before), 0.0)
        start += float(before[counted[block]].sum())
    order = np.argsort(-descending, axis=None)
    descending, changes = descending.ravel()[order], changes.ravel()[order]
    last = last_of_ties(descending)
    sums = np.append(start, start + np.cumsum(changes)[last])
    return Sweep(descending[last], sums / max(1, np.count_nonzero(counted)))


def _values_in_order(targets: Bits, scores: Floats, known: Known, value: Value) -> tuple[Floats, Floats, Floats]:
    """Each unit's scores descending (U, C), its value with nothing decided (U, 1) and after each cell (U, C)."""
    order = np.argsort(-scores, axis=1)
    hits = np.take_along_axis(targets, order, axis=1)
    counted = np.take_along_axis(known, order, axis=1)
    after = Counts(
        true_positives=np.cumsum(hits, axis=1, dtype=np.int64),
        predicted=np.cumsum(counted, axis=1, dtype=np.int64),
        positives=hits.sum(axis=1, keepdims=True, dtype=np.int64),
        size=counted.sum(axis=1, keepdims=True, dtype=np.int64),
    )
    before = after._replace(true_positives=np.zeros_like(after.positives), predicted=np.zeros_like(after.positives))
    return np.take_along_axis(scores, order, axis=1), value(before), value(after)


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
