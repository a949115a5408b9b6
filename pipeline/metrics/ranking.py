"""A label's scores from the highest down, and the three areas that are read off this order."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pipeline.metrics.targets import Bits, Floats, Ints


class Ranking(NamedTuple):
    """N cells by descending score, one entry for each of the D distinct scores.

    Cells of equal score enter together, so that nothing read off a ranking depends on the order of the rows.
    """

    scores: Floats  # (D,) descending
    true_positives: Ints  # (D,) positives among the cells with this score or a higher one
    predicted: Ints  # (D,) cells with this score or a higher one; the last is N

    @property
    def positives(self) -> int:
        """Positives among all N cells."""
        return int(self.true_positives[-1]) if self.true_positives.size else 0


def rank(targets: Bits, scores: Floats) -> Ranking:
    """Rank N cells: targets (N,) 0/1 and scores (N,) without NaN; of no cells the ranking is empty, D = 0."""
    order = np.argsort(-scores)
    descending = scores[order]
    last = last_of_ties(descending)
    true_positives = np.cumsum(targets[order], dtype=np.int64)[last]
    return Ranking(descending[last], true_positives, predicted=last + 1)


def last_of_ties(descending: Floats) -> Ints:
    """Where each run of equal scores ends, (D,): the only places where a threshold can cut."""
    ends = np.flatnonzero(descending[1:] != descending[:-1])
    return np.append(ends, descending.size - 1) if descending.size else ends


def average_precision(ranking: Ranking) -> float:
    """Σ (recall_i − recall_{i−1}) precision_i over the distinct scores, as in scikit-learn.

    NaN without positives.
    """
    return _area(ranking, ranking.true_positives / ranking.predicted)


def average_precision_voc(ranking: Ranking) -> float:
    """As `average_precision`, with each precision replaced by the highest one at this or a higher recall.

    The all-points area of the PASCAL VOC development kit (2010 and later), which the official Query2Label
    code reports. That code orders ties as its sort leaves them; here cells of equal score enter together, one
    point for each distinct score. Without ties the two are equal. NaN without positives.
    """
    precision = ranking.true_positives / ranking.predicted
    return _area(ranking, np.maximum.accumulate(precision[::-1])[::-1])


def roc_auc(ranking: Ranking) -> float:
    """Area under the ROC curve, a tie counting one half; NaN without positives or without negatives."""
    true_positives = np.append(0, ranking.true_positives)
    false_positives = np.append(0, ranking.predicted - ranking.true_positives)
    pairs = true_positives[-1] * false_positives[-1]
    if pairs == 0:
        return math.nan
    # Trapezoids in whole numbers, twice the area: no rounding before the division.
    return float(np.diff(false_positives) @ (true_positives[1:] + true_positives[:-1]) / (2 * pairs))


def _area(ranking: Ranking, precision: Floats) -> float:
    if ranking.positives == 0:
        return math.nan
    return float(np.diff(ranking.true_positives, prepend=0) @ precision / ranking.positives)
