from __future__ import annotations

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

from pipeline.metrics.bootstrap import interval, resample
from pipeline.metrics.registry import METRICS
from pipeline.metrics.targets import Bits, Floats

DECISIONS = [name for name, metric in METRICS.items() if metric.takes == "decisions"]


def tables(rows: int = 60) -> tuple[Floats, Bits]:
    rng = np.random.default_rng(0)
    targets = (rng.random((rows, 3)) < [0.5, 0.3, 0.1]).astype(np.float64)
    decisions = np.where(rng.random((rows, 3)) < 0.8, targets, 1 - targets).astype(np.uint8)
    targets[rng.random((rows, 3)) < 0.2] = np.nan
    targets[0] = np.nan
    targets[1:, 2] = 0.0
    targets[7, 2] = 1.0  # many resamples do not contain it
    return targets, decisions


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("name", DECISIONS)
def test_counts_give_the_metric_of_the_drawn_rows(name: str, grouped: bool) -> None:
    """The same draws restated: the rows of each drawn group, once for each time it was drawn."""
    targets, decisions = tables()
    groups = np.arange(60) // 4 if grouped else np.arange(60)
    metric = replace(METRICS[name], function=Mock(wraps=METRICS[name].function))
    fast = resample(metric, targets, [decisions], groups=groups, resamples=20, seed=7)[0]
    assert metric.function.call_count == 1  # type: ignore[attr-defined]  # not once per resample, which is slow
    draws = np.random.default_rng(7).integers(0, groups.max() + 1, (20, groups.max() + 1))
    for value, draw in zip(fast, draws, strict=True):
        rows = np.concatenate([np.flatnonzero(groups == group) for group in draw])
        assert value == pytest.approx(METRICS[name].function(targets[rows], decisions[rows]).value, abs=1e-12)


def test_all_tables_share_the_resamples() -> None:
    targets, decisions = tables()
    for metric in (METRICS["f1_macro"], replace(METRICS["f1_macro"], criterion=None)):
        first, second = resample(metric, targets, [decisions, decisions], resamples=30)
        np.testing.assert_array_equal(first, second)


def test_a_metric_that_differs_from_its_criterion_is_evaluated_itself() -> None:
    """The metric uses the first label alone, its criterion all labels."""
    targets, decisions = tables()
    first_label = replace(METRICS["f1_macro"], function=lambda t, d: METRICS["f1_macro"].function(t[:, :1], d[:, :1]))
    scores = resample(first_label, targets, [decisions], resamples=200)[0]
    expected = resample(METRICS["f1_macro"], targets[:, :1], [decisions[:, :1]], resamples=200)[0]
    assert abs(scores.mean() - expected.mean()) < 0.03


def test_the_interval_covers_the_true_value_in_95_percent_of_draws() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(150):
        targets = (rng.random((120, 1)) < 0.5).astype(np.uint8)
        decisions = np.where(rng.random((120, 1)) < 0.8, targets, 1 - targets).astype(np.uint8)
        low, high = interval(resample(METRICS["accuracy_cells"], targets, [decisions], resamples=200)[0])
        covered += low <= 0.8 <= high
    assert 0.88 <= covered / 150 <= 0.99


def test_a_group_of_equal_rows_counts_as_one_row() -> None:
    targets, decisions = tables(30)
    copied = np.repeat(targets, 10, axis=0), np.repeat(decisions, 10, axis=0)
    metric, groups = METRICS["accuracy_cells"], np.repeat(np.arange(30), 10)
    alone = resample(metric, targets, [decisions])[0].std()
    assert resample(metric, copied[0], [copied[1]], groups=groups)[0].std() == pytest.approx(alone, rel=1e-9)
    assert resample(metric, copied[0], [copied[1]])[0].std() < alone / 2


def test_scores_that_are_all_nan_have_no_interval() -> None:
    assert np.isnan(interval(np.full(5, np.nan))).all()
