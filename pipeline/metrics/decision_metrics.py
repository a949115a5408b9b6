"""Metrics of decisions: functions of targets (N, K), see `split_targets`, and decisions (N, K) 0/1.

The decision for an unknown cell is ignored. A mean over rows leaves out a row without a known cell.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from pipeline.metrics.counts import (
    Counts,
    Unit,
    accuracy,
    count,
    exact_match,
    f_beta,
    has_both,
    has_positives,
    matthews,
)
from pipeline.metrics.means import Columns, MetricValue, mean_over_labels, mean_over_units
from pipeline.metrics.targets import Binary, Targets, checked_pair


def f_macro(targets: Targets, decisions: Binary, *, beta: float = 1.0, columns: Columns | None = None) -> MetricValue:
    """Mean F over the labels, or over those of `columns`; a label without positives is left out and listed.

    scikit-learn (and so most leaderboards) gives such a label the value 0.
    """
    counts = counts_of(targets, decisions, "label")
    return mean_over_labels(np.where(has_positives(counts), f_beta(counts, beta=beta), np.nan), columns=columns)


def f_weighted(
    targets: Targets, decisions: Binary, *, beta: float = 1.0, columns: Columns | None = None
) -> MetricValue:
    """As `f_macro`, but labels are weighted by their positives."""
    counts = counts_of(targets, decisions, "label")
    per_label = np.where(has_positives(counts), f_beta(counts, beta=beta), np.nan)
    return mean_over_labels(per_label, columns=columns, weights=counts.positives)


def f_micro(targets: Targets, decisions: Binary, *, beta: float = 1.0) -> MetricValue:
    """F of all known cells together; 0 where there are neither positives nor decisions."""
    return mean_over_units(partial(f_beta, beta=beta), counts_of(targets, decisions, "table"))


def f_samples(targets: Targets, decisions: Binary, *, beta: float = 1.0, empty: float = 0.0) -> MetricValue:
    """Mean F over the rows; a row with neither positives nor decisions counts `empty`.

    0 is scikit-learn's default, 1 its `zero_division=1`; Kaggle has used both.
    """
    return mean_over_units(partial(f_beta, beta=beta, empty=empty), counts_of(targets, decisions, "row"))


def accuracy_cells(targets: Targets, decisions: Binary) -> MetricValue:
    """Share of the known cells with the right decision; labels without positives count too."""
    counts = counts_of(targets, decisions, "label")
    per_label = np.where(np.asarray(counts.size) > 0, accuracy(counts), np.nan)
    return MetricValue(mean_over_units(accuracy, counts_of(targets, decisions, "table")).value, per_label)


def hamming(targets: Targets, decisions: Binary) -> MetricValue:
    """Share of the known cells with a wrong decision: 1 − `accuracy_cells`; smaller is better."""
    right = accuracy_cells(targets, decisions)
    return MetricValue(1.0 - right.value, None if right.per_label is None else 1.0 - right.per_label)


def accuracy_subset(targets: Targets, decisions: Binary) -> MetricValue:
    """Share of the rows whose known cells are all decided right; an empty row predicted empty is right."""
    return mean_over_units(exact_match, counts_of(targets, decisions, "row"))


def mcc_macro(targets: Targets, decisions: Binary, *, columns: Columns | None = None) -> MetricValue:
    """Mean Matthews correlation over the labels; a label without positives or without negatives is left out.

    A label with the same decision for all rows has the value 0, as in scikit-learn.
    """
    counts = counts_of(targets, decisions, "label")
    return mean_over_labels(np.where(has_both(counts), matthews(counts), np.nan), columns=columns)


def mcc_micro(targets: Targets, decisions: Binary) -> MetricValue:
    """Matthews correlation of all known cells together; 0 if the targets or the decisions are all equal."""
    return mean_over_units(matthews, counts_of(targets, decisions, "table"))


def counts_of(targets: Targets, decisions: Binary, unit: Unit) -> Counts:
    """Counts of the known cells. Raises ValueError as `checked_pair`."""
    bits, known, chosen = checked_pair(targets, decisions)
    return count(bits, chosen, unit, known)
