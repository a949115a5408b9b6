"""Every metric by name, and what it does with a label that has no positives: it is left out and listed.

A target may be unknown (NaN): such a cell is in no count and no ranking, whatever was predicted for it. A row
without a known cell leaves means over rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, nearest
from pipeline.evaluation.arrays import Binary, Bits, Floats, Ints, Known, Targets, checked_pair, split_scores
from pipeline.evaluation.counts import Counts, Unit, Value, accuracy, count, exact_match, f1, f2
from pipeline.evaluation.ranking import Ranking, average_precision, average_precision_voc, rank, roc_auc

LOG_LOSS_CLIP = 1e-15


class MetricValue(NamedTuple):
    """A metric's value and where it comes from."""

    value: float  # NaN if no label remains
    per_label: Floats | None = None  # (K,), NaN where left out; None where the metric has no value per label
    left_out: tuple[int, ...] = ()  # label indices that the mean leaves out


class Criterion(NamedTuple):
    """A decision metric as a sweep over thresholds sees it: the mean over its units of `value`."""

    unit: Unit
    value: Value
    per_label: Value  # what `per_label` maximises for each label alone


@dataclass(frozen=True)
class Metric:
    """A metric by name.

    `function(targets, values)` takes targets (N, K), see `split_targets`, and, as `takes` says, decisions (N, K) 0/1 or
    probabilities (N, K) in [0, 1]; it raises ValueError for anything else.
    """

    name: str
    takes: Literal["decisions", "probabilities"]
    greater_is_better: bool
    function: Callable[[Targets, NDArray[Any]], MetricValue]
    criterion: Criterion | None = None  # None for a metric of probabilities


def f1_macro(targets: Targets, decisions: Binary) -> MetricValue:
    """Mean F1 over the labels; a label without positives is left out."""
    counts = _counts(targets, decisions, "label")
    return _mean_over_labels(np.where(counts.positives > 0, f1(counts), np.nan))


def f1_micro(targets: Targets, decisions: Binary) -> MetricValue:
    """F1 of all known cells together; 0 where there are neither positives nor decisions."""
    return _mean_over_units(f1, _counts(targets, decisions, "table"))


def f1_samples(targets: Targets, decisions: Binary) -> MetricValue:
    """Mean F1 over the rows; a row with neither positives nor decisions counts 0."""
    return _mean_over_units(f1, _counts(targets, decisions, "row"))


def f2_samples(targets: Targets, decisions: Binary) -> MetricValue:
    """Mean F2 over the rows; a row with neither positives nor decisions counts 0."""
    return _mean_over_units(f2, _counts(targets, decisions, "row"))


def accuracy_cells(targets: Targets, decisions: Binary) -> MetricValue:
    """Share of the known cells that are right; labels without positives count too."""
    counts = _counts(targets, decisions, "label")
    per_label = np.where(np.asarray(counts.size) > 0, accuracy(counts), np.nan)
    return MetricValue(_mean_over_units(accuracy, _counts(targets, decisions, "table")).value, per_label)


def accuracy_subset(targets: Targets, decisions: Binary) -> MetricValue:
    """Share of the rows with all known cells right."""
    return _mean_over_units(exact_match, _counts(targets, decisions, "row"))


def auc_macro(targets: Targets, probabilities: Floats) -> MetricValue:
    """Mean area under the ROC curve; a label without positives or without negatives is left out."""
    return _mean_of_rankings(roc_auc, targets, probabilities)


def mean_average_precision(targets: Targets, probabilities: Floats) -> MetricValue:
    """Mean step-wise average precision, ties as in scikit-learn; a label without positives is left out."""
    return _mean_of_rankings(average_precision, targets, probabilities)


def mean_average_precision_voc(targets: Targets, probabilities: Floats) -> MetricValue:
    """Mean VOC average precision (see `average_precision_voc`); a label without positives is left out."""
    return _mean_of_rankings(average_precision_voc, targets, probabilities)


def log_loss(targets: Targets, probabilities: Floats) -> MetricValue:
    """Mean binary cross-entropy in nats over all known cells, probabilities clipped to [1e-15, 1 − 1e-15]."""
    bits, known, table = split_scores(targets, probabilities)
    of_the_truth = np.clip(np.where(bits == 1, table, 1.0 - table), LOG_LOSS_CLIP, 1.0 - LOG_LOSS_CLIP)
    sums, cells = np.where(known, -np.log(of_the_truth), 0.0).sum(axis=0), known.sum(axis=0)
    value = float(sums.sum() / cells.sum()) if cells.any() else math.nan
    return MetricValue(value, _ratio(sums, cells))


METRICS: dict[str, Metric] = {
    "f1_macro": Metric("f1_macro", "decisions", True, f1_macro, Criterion("label", f1, per_label=f1)),
    "f1_micro": Metric("f1_micro", "decisions", True, f1_micro, Criterion("table", f1, per_label=f1)),
    "f1_samples": Metric("f1_samples", "decisions", True, f1_samples, Criterion("row", f1, per_label=f1)),
    "f2_samples": Metric("f2_samples", "decisions", True, f2_samples, Criterion("row", f2, per_label=f2)),
    "accuracy_cells": Metric(
        "accuracy_cells", "decisions", True, accuracy_cells, Criterion("table", accuracy, per_label=accuracy)
    ),
    "accuracy_subset": Metric(
        "accuracy_subset", "decisions", True, accuracy_subset, Criterion("row", exact_match, per_label=accuracy)
    ),
    "auc_macro": Metric("auc_macro", "probabilities", True, auc_macro),
    "log_loss": Metric("log_loss", "probabilities", False, log_loss),
    "map": Metric("map", "probabilities", True, mean_average_precision),
    "map_voc": Metric("map_voc", "probabilities", True, mean_average_precision_voc),
}


def get_metric(name: str) -> Metric:
    """The metric called `name`; raises ConfigError for an unknown one."""
    if name not in METRICS:
        raise ConfigError(
            f"unknown metric '{name}'{nearest(name, METRICS)}", remedy=f"choose one of {', '.join(METRICS)}"
        )
    return METRICS[name]


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Each label's figures, all (K,), for reports; NaN where undefined."""

    positives: Ints
    average_precision: Floats  # NaN without positives
    auc: Floats  # NaN without positives or without negatives
    precision: Floats  # NaN where nothing is decided for the label
    recall: Floats  # NaN without positives
    f1: Floats  # NaN without positives


def per_label_table(targets: Targets, probabilities: Floats, decisions: Binary) -> LabelTable:
    """The figures of every label from targets, probabilities and decisions, all (N, K)."""
    counts = _counts(targets, decisions, "label")
    rankings = _rankings(*split_scores(targets, probabilities))
    return LabelTable(
        positives=counts.positives,
        average_precision=np.array([average_precision(ranking) for ranking in rankings]),
        auc=np.array([roc_auc(ranking) for ranking in rankings]),
        precision=_ratio(counts.true_positives, counts.predicted),
        recall=_ratio(counts.true_positives, counts.positives),
        f1=np.where(counts.positives > 0, f1(counts), np.nan),
    )


def _counts(targets: Targets, decisions: Binary, unit: Unit) -> Counts:
    bits, known, chosen = checked_pair(targets, decisions)
    return count(bits, chosen, unit, known)


def _rankings(bits: Bits, known: Known, table: Floats) -> list[Ranking]:
    """One ranking of the known cells for each label."""
    columns = (np.ascontiguousarray(part.T) for part in (bits, known, table))  # sorting strided columns is slower
    return [rank(hits[there], scores[there]) for hits, there, scores in zip(*columns, strict=True)]


def _ratio(part: Ints | Floats, whole: Ints) -> Floats:
    ratio: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio


def _mean_of_rankings(area: Callable[[Ranking], float], targets: Targets, probabilities: Floats) -> MetricValue:
    rankings = _rankings(*split_scores(targets, probabilities))
    return _mean_over_labels(np.array([area(ranking) for ranking in rankings]))


def _mean_over_units(value: Value, counts: Counts) -> MetricValue:
    """Mean over the units with a known cell; NaN if there is none."""
    values = value(counts)[np.asarray(counts.size) > 0]
    return MetricValue(float(values.mean()) if values.size else math.nan)


def _mean_over_labels(per_label: Floats) -> MetricValue:
    undefined = np.isnan(per_label)
    value = math.nan if undefined.all() else float(per_label[~undefined].mean())
    return MetricValue(value, per_label, tuple(np.flatnonzero(undefined).tolist()))
