"""A metric's value, and the two means that make it: over labels and over units of cells."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pipeline.metrics.counts import Counts, Value
from pipeline.metrics.targets import Floats, Ints

Columns = tuple[int, ...]


class MetricValue(NamedTuple):
    """A metric's value and where it comes from."""

    value: float  # NaN if no label remains
    per_label: Floats | None = None  # (K,), NaN where left out; None where the metric has no value per label
    left_out: Columns = ()  # label indices that the mean leaves out because they have no value


def mean_over_labels(
    per_label: Floats, *, columns: Columns | None = None, weights: Floats | Ints | None = None
) -> MetricValue:
    """Mean of (K,) values, NaN where a label has none: such a label is left out and listed.

    Args:
        per_label: (K,) the labels' values.
        columns: the labels that are asked for; all if None. Others have NaN in the result and are not listed.
        weights: (K,) above 0 where a label has a value; equal if None.
    """
    asked = np.ones(per_label.shape, np.bool_)
    if columns is not None:
        asked[:] = False
        asked[list(columns)] = True
    there = asked & ~np.isnan(per_label)
    value = math.nan
    if there.any():
        value = float(np.average(per_label[there], weights=None if weights is None else weights[there]))
    left_out = np.flatnonzero(asked & ~there)
    return MetricValue(value, np.where(asked, per_label, np.nan), tuple(left_out.tolist()))


def mean_over_units(value: Value, counts: Counts) -> MetricValue:
    """Mean over the units with a known cell; NaN if there is none."""
    values = value(counts)[np.asarray(counts.size) > 0]
    return MetricValue(float(values.mean()) if values.size else math.nan)


def ratio(part: Floats | Ints, whole: Floats | Ints) -> Floats:
    """part / whole, NaN where the whole is 0."""
    quotient: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return quotient
