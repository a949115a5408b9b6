"""Every metric by name, and what it does with a label that has no positives: it is left out and listed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, nearest
from pipeline.evaluation.arrays import Binary, Bits, Floats, Ints, checked_pair, checked_scores
from pipeline.evaluation.counts import Unit, Value, accuracy, count, exact_match, f1, f2
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

    `function(targets, values)` takes targets (N, K) 0/1 and, as `takes` says, decisions (N, K) 0/1 or
    probabilities (N, K) in [0, 1]; it raises ValueError for anything else.
    """

    name: str
    takes: Literal["decisions", "probabilities"]
    greater_is_better: bool
    function: Callable[[Binary, NDArray[Any]], MetricValue]
    criterion: Criterion | None = None  # None for a metric of probabilities


def f1_macro(targets: Binary, decisions: Binary) -> MetricValue:
    """Mean F1 over the labels; a label without positives is left out."""
    counts = count(*checked_pair(targets, decisions), "label")
    return _mean_over_labels(np.where(counts.positives > 0, f1(counts), np.nan))


def f1_micro(targets: Binary, decisions: Binary) -> MetricValue:
    """F1 of all N x K cells together; 0 where there are neither positives nor decisions."""
    return _mean_over_units(f1(count(*checked_pair(targets, decisions), "table")))


def f1_samples(targets: Binary, decisions: Binary) -> MetricValue:
    """Mean F1 over the rows; a row with neither positives nor decisions counts 0."""
    return _mean_over_units(f1(count(*checked_pair(targets, decisions), "row")))


def f2_samples(targets: Binary, decisions: Binary) -> MetricValue:
    """Mean F2 over the rows; a row with neither positives nor decisions counts 0."""
    return _mean_over_units(f2(count(*checked_pair(targets, decisions), "row")))


def accuracy_cells(targets: Binary, decisions: Binary) -> MetricValue:
    """Share of the N x K cells that are right; labels without positives count too."""
    per_label = accuracy(count(*checked_pair(targets, decisions), "label"))
    return MetricValue(float(per_label.mean()), per_label)


def accuracy_subset(targets: Binary, decisions: Binary) -> MetricValue:
    """Share of the rows with all K cells right."""
    return _mean_over_units(exact_match(count(*checked_pair(targets, decisions), "row")))


def auc_macro(targets: Binary, probabilities: Floats) -> MetricValue:
    """Mean area under the ROC curve; a label without positives or without negatives is left out."""
    return _mean_of_rankings(roc_auc, targets, probabilities)


def mean_average_precision(targets: Binary, probabilities: Floats) -> MetricValue:
    """Mean step-wise average precision, ties as in scikit-learn; a label without positives is left out."""
    return _mean_of_rankings(average_precision, targets, probabilities)


def mean_average_precision_voc(targets: Binary, probabilities: Floats) -> MetricValue:
    """Mean VOC average precision (see `average_precision_voc`); a label without positives is left out."""
    return _mean_of_rankings(average_precision_voc, targets, probabilities)


def log_loss(targets: Binary, probabilities: Floats) -> MetricValue:
    """Mean binary cross-entropy in nats over all N x K cells, probabilities clipped to [1e-15, 1 − 1e-15]."""
    bits, table = checked_scores(targets, probabilities)
    of_the_truth = np.clip(np.where(bits == 1, table, 1.0 - table), LOG_LOSS_CLIP, 1.0 - LOG_LOSS_CLIP)
    per_label = -np.log(of_the_truth).mean(axis=0)
    return MetricValue(float(per_label.mean()), per_label)


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


def per_label_table(targets: Binary, probabilities: Floats, decisions: Binary) -> LabelTable:
    """The figures of every label from targets, probabilities and decisions, all (N, K)."""
    bits, table = checked_scores(targets, probabilities)
    counts = count(*checked_pair(bits, decisions), "label")
    rankings = _rankings(bits, table)
    return LabelTable(
        positives=counts.positives,
        average_precision=np.array([average_precision(ranking) for ranking in rankings]),
        auc=np.array([roc_auc(ranking) for ranking in rankings]),
        precision=_ratio(counts.true_positives, counts.predicted),
        recall=_ratio(counts.true_positives, counts.positives),
        f1=np.where(counts.positives > 0, f1(counts), np.nan),
    )


def _rankings(bits: Bits, table: Floats) -> list[Ranking]:
    columns = np.ascontiguousarray(bits.T), np.ascontiguousarray(table.T)  # sorting strided columns is slower
    return [rank(bits_of_label, scores) for bits_of_label, scores in zip(*columns, strict=True)]


def _ratio(part: Ints, whole: Ints) -> Floats:
    ratio: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio


def _mean_of_rankings(area: Callable[[Ranking], float], targets: Binary, probabilities: Floats) -> MetricValue:
    rankings = _rankings(*checked_scores(targets, probabilities))
    return _mean_over_labels(np.array([area(ranking) for ranking in rankings]))


def _mean_over_units(values: Floats) -> MetricValue:
    return MetricValue(float(values.mean()))


def _mean_over_labels(per_label: Floats) -> MetricValue:
    undefined = np.isnan(per_label)
    value = math.nan if undefined.all() else float(per_label[~undefined].mean())
    return MetricValue(value, per_label, tuple(np.flatnonzero(undefined).tolist()))
