"""Small random tables with many ties, extremes and labels without positives, for tests of metrics and thresholds."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pipeline.metrics.registry import Metric
from pipeline.metrics.targets import Bits, Floats, Targets
from pipeline.thresholds.policies import POLICIES
from pipeline.thresholds.row_rules import RowRules
from pipeline.thresholds.threshold_problem import threshold_problem

SOFT = [0.0, 0.2, 0.5, 1.0, np.nan]
TIED = [0.0, 0.1, 0.25, 0.5, 0.75, 1.0 - 2.0**-53, 1.0]
Scored = tuple[Bits, Floats]
quick = settings(deadline=None, max_examples=60)


def bits(shape: tuple[int, int]) -> st.SearchStrategy[Bits]:
    return hnp.arrays(np.uint8, shape, elements=st.integers(0, 1))


@st.composite
def scored(draw: st.DrawFn, *, max_rows: int = 12, max_labels: int = 4, min_rows: int = 1) -> Scored:
    """Targets and probabilities, both (N, K)."""
    shape = draw(st.integers(min_rows, max_rows)), draw(st.integers(1, max_labels))
    probability = draw(st.sampled_from([st.sampled_from(TIED), st.floats(0.0, 1.0)]))
    return draw(bits(shape)), draw(hnp.arrays(np.float64, shape, elements=probability))


@st.composite
def decided(draw: st.DrawFn) -> tuple[Bits, Bits]:
    """Targets and decisions, both (N, K), K >= 2: scikit-learn reads a single column as a binary problem."""
    shape = draw(st.integers(1, 12)), draw(st.integers(2, 4))
    return draw(bits(shape)), draw(bits(shape))


@st.composite
def masked(draw: st.DrawFn) -> tuple[Floats, Floats]:
    """Targets (N, K), soft and with unknown cells, and probabilities (N, K)."""
    shape = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    targets = hnp.arrays(np.float64, shape, elements=st.sampled_from(SOFT))
    return draw(targets), draw(hnp.arrays(np.float64, shape, elements=st.sampled_from(TIED)))


def by_metric(*metrics: Metric) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("metric", metrics, ids=lambda metric: metric.name)


def fitted(
    policy: str, metric: Metric, targets: Targets, probabilities: Floats, rules: RowRules | None = None
) -> Floats:
    return POLICIES[policy](threshold_problem(metric, targets, probabilities, rules))


def values_of(metric: Metric, probabilities: Floats) -> NDArray[Any]:
    """The metric's input: the probabilities, or decisions by the threshold 0.5."""
    return probabilities if metric.takes == "probabilities" else (probabilities >= 0.5).astype(np.uint8)
