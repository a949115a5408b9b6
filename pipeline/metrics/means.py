"""The value of a metric, and the means that give it: over labels, and over units of cells."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.counts import Counts, Value
from pipeline.metrics.targets import Floats, Ints

Columns = tuple[int, ...]


class MetricValue(NamedTuple):
    """A metric's value, and its values per label."""

    value: float  # NaN if no label has a value
    per_label: Floats | None = None  # (K,), NaN where left out; None if the metric has no value per label
    left_out: Columns = ()  # indices of the labels that the mean leaves out because they have no value


def mean_over_labels(
    per_label: Floats, *, columns: Columns | None = None, weights: Floats | Ints | None = None
) -> MetricValue:
    """Mean over the labels; a label whose value is NaN is left out and listed.

    Args:
        per_label: (K,) the labels' values.
        columns: indices of the labels to average; all if None. The others are NaN in the result and not listed.
        weights: (K,) above 0 where a label has a value; equal if None.
    """
    selected = np.ones(per_label.shape, np.bool_)
    if columns is not None:
        selected[:] = False
        selected[list(columns)] = True
    defined = selected & ~np.isnan(per_label)
    value = math.nan
    if defined.any():
        value = float(np.average(per_label[defined], weights=None if weights is None else weights[defined]))
    left_out = np.flatnonzero(selected & ~defined)
    return MetricValue(value, np.where(selected, per_label, np.nan), tuple(left_out.tolist()))


def mean_over_units(value: Value, counts: Counts) -> MetricValue:
    """Mean over the units with a known cell; NaN if no unit has one."""
    values = value(counts)[np.asarray(counts.size) > 0]
    return MetricValue(float(values.mean()) if values.size else math.nan)


def ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Floats:
    """numerator / denominator, NaN where the denominator is 0."""
    quotient: Floats = np.divide(
        numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=np.asarray(denominator) > 0
    )
    return quotient
