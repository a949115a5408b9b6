"""Metrics of probabilities: functions of targets (N, K), see `split_targets`, and probabilities (N, K) in [0, 1].

The probability of an unknown cell is ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from pipeline.metrics.means import Columns, MetricValue, mean_over_labels, ratio
from pipeline.metrics.ranking import Ranking, average_precision, average_precision_voc, rank, roc_auc
from pipeline.metrics.targets import Bits, Floats, Ints, Targets, blocks, by_label, split_scores

LOG_LOSS_CLIP = 1e-15
_UNKNOWN = -1.0  # score of an unknown cell in its row: below all known ones, so that it ties with none
_BLOCK_LABELS = 64  # labels whose losses are in memory at once
_BLOCK_CELLS = 1_000_000  # cells that are ranked within their rows at once
Area = Callable[[Ranking], float]


def auc_macro(targets: Targets, probabilities: Floats, *, columns: Columns | None = None) -> MetricValue:
    """Mean area under the ROC curve; a label without positives or without negatives is left out."""
    return _mean_area(roc_auc, targets, probabilities, columns)


def auc_weighted(targets: Targets, probabilities: Floats, *, columns: Columns | None = None) -> MetricValue:
    """As `auc_macro`, but labels are weighted by their positives."""
    areas = [(roc_auc(ranking), ranking.positives) for ranking in rankings_of(targets, probabilities)]
    per_label, positives = np.array([area for area, _ in areas]), np.array([count for _, count in areas])
    return mean_over_labels(per_label, columns=columns, weights=positives)


def mean_average_precision(targets: Targets, probabilities: Floats, *, columns: Columns | None = None) -> MetricValue:
    """Mean of `average_precision`, ties as in scikit-learn; a label without positives is left out."""
    return _mean_area(average_precision, targets, probabilities, columns)


def mean_average_precision_voc(
    targets: Targets, probabilities: Floats, *, columns: Columns | None = None
) -> MetricValue:
    """Mean of `average_precision_voc`; a label without positives is left out."""
    return _mean_area(average_precision_voc, targets, probabilities, columns)


def log_loss(
    targets: Targets,
    probabilities: Floats,
    *,
    weights: tuple[float, ...] | None = None,
    clip: float = LOG_LOSS_CLIP,
    normalize: bool = True,
) -> MetricValue:
    """Mean binary cross-entropy in nats over all known cells, probabilities clipped to [clip, 1 − clip].

    Args:
        targets: (N, K).
        probabilities: (N, K).
        weights: one for the cells of each of the K labels, 1 if None; `per_label` is not weighted.
        clip: smallest distance of a probability from 0 and 1.
        normalize: divides by the sum of the cells' weights, so that the value is a mean; otherwise by the number
            of cells.
    """
    bits, known, table = split_scores(targets, probabilities)
    sums, cells = np.empty(bits.shape[1]), known.sum(axis=0)
    for labels in blocks(sums.size, _BLOCK_LABELS):
        of_target = np.where(bits[:, labels] == 1, table[:, labels], 1.0 - table[:, labels])
        losses = np.where(known[:, labels], -np.log(np.clip(of_target, clip, 1.0 - clip)), 0.0)
        sums[labels] = np.ascontiguousarray(losses).sum(axis=0)  # sums round: the memory layout must not change them
    shares = np.ones(cells.shape) if weights is None else np.array(weights)
    whole = float((cells * shares).sum() if normalize else cells.sum())
    return MetricValue(float((sums * shares).sum() / whole) if whole else math.nan, ratio(sums, cells))


def lwlrap(targets: Targets, probabilities: Floats) -> MetricValue:
    """Label-weighted label-ranking average precision: the mean, over all positive cells, of the precision there.

    The precision at a cell is the share of positives among the row's labels with at least its probability. A row
    without positives does not count; a label without positives is left out. As the DCASE and Kaggle audio tagging
    tasks define it (Ellis 2018), ties as in scikit-learn's label_ranking_average_precision_score.
    """
    bits, known, table = split_scores(targets, probabilities)
    precision = np.empty(table.shape)
    for rows in _row_blocks(table):
        precision[rows] = _precision_at_cells(bits[rows], np.where(known[rows], table[rows], _UNKNOWN))
    precision *= bits
    positives = bits.sum(axis=0, dtype=np.int64)
    return mean_over_labels(ratio(precision.sum(axis=0), positives), weights=positives)


def _precision_at_cells(bits: Bits, scores: Floats) -> Floats:
    """Precision at each cell (N, K): the share of positives among the row's labels with at least its score."""
    order = np.argsort(-scores, axis=1)
    hits = np.cumsum(np.take_along_axis(bits, order, axis=1), axis=1, dtype=np.int64)
    ends = _ends_of_ties(np.take_along_axis(scores, order, axis=1))
    precision = np.empty(scores.shape)
    np.put_along_axis(precision, order, np.take_along_axis(hits, ends, axis=1) / (ends + 1), axis=1)
    return precision


def map_at_k(targets: Targets, probabilities: Floats, *, k: int, empty: float = 0.0) -> MetricValue:
    """Mean over the rows of Σ_{i <= k} precision at i · [the i-th label is positive] / min(k, positives).

    Kaggle's MAP@k for a submission that lists the k best labels in order; of labels with equal probabilities the
    one with the lower index comes first. A row without positives counts `empty`, 0 as in Kaggle's code; a row
    without a known cell is left out.
    """
    bits, known, table = split_scores(targets, probabilities)
    scores = (np.where(known[rows], table[rows], _UNKNOWN) for rows in _row_blocks(table))
    order = np.concatenate([np.argsort(-block, axis=1, kind="stable")[:, :k] for block in scores])
    hits = np.take_along_axis(bits, order, axis=1)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    positives = bits.sum(axis=1, dtype=np.int64)
    rows = (precision * hits).sum(axis=1) / np.maximum(np.minimum(k, positives), 1)
    rows = np.where(positives > 0, rows, empty)[known.any(axis=1)]
    return MetricValue(float(rows.mean()) if rows.size else math.nan)


def rankings_of(targets: Targets, probabilities: Floats) -> Iterator[Ranking]:
    """Yields the ranking of each label's known cells; all at once would take more memory than the tables.

    Raises ValueError as `split_scores`, at the first ranking.
    """
    bits, known, scores = split_scores(by_label(np.asarray(targets)), by_label(np.asarray(probabilities)))
    for label, rows in enumerate(known.T):
        yield rank(bits[rows, label], scores[rows, label])


def _mean_area(area: Area, targets: Targets, probabilities: Floats, columns: Columns | None) -> MetricValue:
    areas = [area(ranking) for ranking in rankings_of(targets, probabilities)]
    return mean_over_labels(np.array(areas), columns=columns)


def _row_blocks(table: Floats) -> Iterator[slice]:
    return blocks(len(table), max(1, _BLOCK_CELLS // table.shape[1]))


def _ends_of_ties(descending: Floats) -> Ints:
    """Column where the run of equal scores ends, for each cell of rows (N, K) in descending order."""
    last = descending.shape[1] - 1
    ends = np.full(descending.shape, last, np.int64)
    ends[:, :-1] = np.where(descending[:, 1:] != descending[:, :-1], np.arange(last), last)
    nearest: Ints = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    return nearest
