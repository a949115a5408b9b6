"""The figures of a label that its curves are drawn from, and the cells of it that a page shows."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.ranking import Ranking, rank
from pipeline.metrics.targets import Bits, Floats, Ints
from pipeline.report.page.label_errors import self_confidence, suspected

_POINTS = 80  # of a precision-recall curve
_BINS = 15  # of equal width, as in Guo et al. 2017
MOST_SUSPECTS = 300  # on a page
Kind = Literal["false positive", "miss", "suspect"]


class Cell(NamedTuple):
    """One validated cell; `row` is its place in the out-of-fold table, `label` that of its label in the run."""

    kind: Kind
    row: int
    label: int
    given: int
    probability: float

    @property
    def self_confidence(self) -> float:
        """The probability of the given target."""
        return self.probability if self.given else 1.0 - self.probability


class LabelFigures(NamedTuple):
    """The curves of one label.

    Attributes:
        curve: (recall, precision), at most 80 points.
        mark: the point of the threshold, which all rows have seen; None where nothing is predicted or positive.
        bins: (negatives, positives, mean probability) in 15 bins of the probability.
        calibration_error: the expected calibration error: the mean of |rate - mean probability| over the bins, weighted
            by their cells (C. Guo et al., 2017).
        suspects: the number of suspected label errors.
    """

    curve: list[tuple[float, float]]
    mark: tuple[float, float] | None
    bins: list[tuple[int, int, float]]
    calibration_error: float
    suspects: int


def label_figures(
    label: int, rows: Ints, bits: Bits, probabilities: Floats, calibrated: Floats, *, threshold: float, shown: int
) -> tuple[LabelFigures, list[Cell]]:
    """The figures of a label over its known cells, and the cells of it that a page may show.

    Args:
        label: its place in the run.
        rows: (N,) the places of its known cells in the out-of-fold table.
        bits: (N,) given targets, 0 or 1.
        probabilities: (N,) out-of-fold, as the threshold takes them.
        calibrated: (N,) the same by Platt: labels differ in scale, and a suspicion must be comparable.
        threshold: of the run.
        shown: how many false positives, and how many misses, are returned at most.
    """
    ranking = rank(bits, probabilities)
    decided, suspicious = probabilities >= threshold, suspected(bits, calibrated)
    places = np.minimum((probabilities * _BINS).astype(np.int64), _BINS - 1)
    sizes, sums = np.bincount(places, minlength=_BINS), np.bincount(places, probabilities, minlength=_BINS)
    positives = np.bincount(places, bits, minlength=_BINS)
    means = sums / np.maximum(sizes, 1)
    hits = int((bits & decided).sum())
    figures = LabelFigures(
        curve=_thinned(ranking),
        mark=(hits / ranking.positives, hits / int(decided.sum())) if ranking.positives and decided.any() else None,
        bins=[(int(n - p), int(p), round(float(mean), 4)) for n, p, mean in zip(sizes, positives, means, strict=True)],
        calibration_error=float(np.abs(positives - sums).sum() / max(bits.size, 1)),
        suspects=int(suspicious.sum()),
    )
    kinds: tuple[tuple[Kind, NDArray[np.bool_], Floats, int], ...] = (
        ("false positive", decided & (bits == 0), probabilities, shown),
        ("miss", ~decided & (bits == 1), probabilities, shown),
        ("suspect", suspicious, calibrated, MOST_SUSPECTS),
    )
    cells = []
    for kind, chosen, values, count in kinds:
        own = np.flatnonzero(chosen)
        least = own[np.argsort(self_confidence(bits, values)[own], kind="stable")[:count]]
        cells += [Cell(kind, int(rows[cell]), label, int(bits[cell]), float(values[cell])) for cell in least]
    return figures, cells


def _thinned(ranking: Ranking) -> list[tuple[float, float]]:
    """Points (recall, precision) at evenly spaced recalls; none without positives."""
    if not ranking.positives:
        return []
    recall = ranking.true_positives / ranking.positives
    chosen = np.unique(np.searchsorted(recall, np.linspace(recall[0], 1.0, _POINTS)))
    precision = ranking.true_positives[chosen] / ranking.predicted[chosen]
    return [(round(float(r), 4), round(float(p), 4)) for r, p in zip(recall[chosen], precision, strict=True)]
