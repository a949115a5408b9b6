"""Table of per-label figures, for reports."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.metrics.counts import f1
from pipeline.metrics.decision_metrics import counts_of
from pipeline.metrics.means import ratio
from pipeline.metrics.ranking import average_precision, roc_auc
from pipeline.metrics.ranking_metrics import rankings_of
from pipeline.metrics.targets import Binary, Floats, Ints, Targets


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Figures of each label over its known cells, all (K,); NaN where undefined."""

    positives: Ints
    average_precision: Floats  # NaN without positives
    constant_precision: Floats  # average precision of a constant score; NaN without positives
    auc: Floats  # NaN without positives or without negatives
    precision: Floats  # NaN where the label is predicted for no row
    recall: Floats  # NaN without positives
    f1: Floats  # NaN without positives


def per_label_table(targets: Targets, probabilities: Floats, decisions: Binary) -> LabelTable:
    """Computes the figures from targets, probabilities and decisions, all (N, K)."""
    counts = counts_of(targets, decisions, "label")
    areas = [(average_precision(ranking), roc_auc(ranking)) for ranking in rankings_of(targets, probabilities)]
    return LabelTable(
        positives=counts.positives,
        average_precision=np.array([area for area, _ in areas]),
        constant_precision=ratio(counts.positives * ratio(counts.positives, np.asarray(counts.size)), counts.positives),
        auc=np.array([area for _, area in areas]),
        precision=ratio(counts.true_positives, counts.predicted),
        recall=ratio(counts.true_positives, counts.positives),
        f1=np.where(counts.positives > 0, f1(counts), np.nan),
    )
