"""Ranking of one label's cells by descending score, and the areas computed from it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pipeline.metrics.targets import Bits, Floats, Ints


class Ranking(NamedTuple):
    """N cells by descending score, one entry for each of the D distinct scores.

    Cells of equal score share an entry, so that no result depends on the order of the rows.
    """

    scores: Floats  # (D,) descending
    true_positives: Ints  # (D,) positives among the cells with this score or a higher one
    predicted: Ints  # (D,) cells with this score or a higher one; the last is N

    @property
    def positives(self) -> int:
        """Positives among all N cells."""
        return int(self.true_positives[-1]) if self.true_positives.size else 0


def rank(targets: Bits, scores: Floats) -> Ranking:
    """Ranks N cells: targets (N,) 0/1 and scores (N,) without NaN; D = 0 if N is 0."""
    order = np.argsort(-scores)
    descending = scores[order]
    last = last_of_ties(descending)
    true_positives = np.cumsum(targets[order], dtype=np.int64)[last]
    return Ranking(descending[last], true_positives, predicted=last + 1)


def last_of_ties(descending: Floats) -> Ints:
    """Index of the last cell of each run of equal scores, (D,): a threshold can cut only after these."""
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
    code reports. That code orders ties arbitrarily; here each distinct score is one point. Without ties the
    two are equal. NaN without positives.
    """
    precision = ranking.true_positives / ranking.predicted
    return _area(ranking, np.maximum.accumulate(precision[::-1])[::-1])


def roc_auc(ranking: Ranking) -> float:
    """Area under the ROC curve; a tie counts one half. NaN without positives or without negatives."""
    true_positives = np.append(0, ranking.true_positives)
    false_positives = np.append(0, ranking.predicted - ranking.true_positives)
    pairs = true_positives[-1] * false_positives[-1]
    if pairs == 0:
        return math.nan
    # Twice the area of the trapezoids, in integers: nothing is rounded before the division.
    return float(np.diff(false_positives) @ (true_positives[1:] + true_positives[:-1]) / (2 * pairs))


def _area(ranking: Ranking, precision: Floats) -> float:
    if ranking.positives == 0:
        return math.nan
    return float(np.diff(ranking.true_positives, prepend=0) @ precision / ranking.positives)
