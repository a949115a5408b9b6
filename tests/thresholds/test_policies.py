from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from pipeline.metrics.counts import count
from pipeline.metrics.registry import METRICS, Metric, get_metric
from pipeline.metrics.targets import Bits, Floats
from pipeline.thresholds.policies import POLICIES, shrink
from pipeline.thresholds.row_rules import RowRules
from tests.thresholds.tables import Scored, by_metric, fitted, quick, scored

ABOVE_ONE = np.nextafter(1.0, 2.0)
DECISIONS = [metric for metric in METRICS.values() if metric.name.startswith(("f", "accuracy"))]
by_decision_metric = by_metric(*DECISIONS)


def value_at(metric: Metric, targets: Bits, probabilities: Floats, thresholds: Floats) -> float:
    return metric.function(targets, (probabilities >= thresholds).astype(np.uint8)).value


def every_threshold(scores: Floats) -> list[float]:
    """One threshold for each set of cells that a threshold can decide."""
    return [*np.unique(scores).tolist(), float(ABOVE_ONE)]


def middle_of_the_widest_best_plateau(metric: Metric, targets: Bits, probabilities: Floats) -> float:
    """The rule restated: visits the intervals (low, high] of thresholds upwards and joins neighbours that are best."""
    edges = sorted({0.0, 1.0, *probabilities.ravel().tolist()})
    intervals = [(0.0, 0.0), *itertools.pairwise(edges), (1.0, float(ABOVE_ONE))]
    values = [value_at(metric, targets, probabilities, np.asarray(high)) for _, high in intervals]
    plateaus: list[list[tuple[float, float]]] = []
    for rank, (interval, value) in enumerate(zip(intervals, values, strict=True)):
        if value < max(values) - 1e-12:
            continue
        if plateaus and rank > 0 and plateaus[-1][-1] == intervals[rank - 1]:
            plateaus[-1].append(interval)
        else:
            plateaus.append([interval])
    bounds = [(plateau[0][0], min(plateau[-1][1], 1.0)) for plateau in plateaus]
    low, high = max(bounds, key=lambda bound: (bound[1] - bound[0], bound[1]))
    if low == 1.0:
        return float(ABOVE_ONE)
    middle = (low + high) / 2
    return middle if value_at(metric, targets, probabilities, np.asarray(middle)) >= max(values) - 1e-12 else high


@by_metric(*DECISIONS, *map(get_metric, ("mcc_macro", "mcc_micro", "hamming", "f0.5_samples")))
@quick
@given(table=scored())
def test_the_global_threshold_is_the_best_of_all(metric: Metric, table: Scored) -> None:
    targets, probabilities = table
    thresholds = fitted("global", metric, targets, probabilities)
    assert thresholds.shape == targets.shape[1:]
    assert np.unique(thresholds).size == 1
    candidates = [np.asarray(t) for t in every_threshold(probabilities)]
    values = [value_at(metric, targets, probabilities, candidate) for candidate in candidates]
    best = max(values) if metric.greater_is_better else min(values)
    found = value_at(metric, targets, probabilities, thresholds)
    np.testing.assert_allclose(found, best, rtol=0, atol=1e-12)  # NaN equals NaN: no label has positives


@by_decision_metric
@quick
@given(table=scored())
def test_the_global_threshold_is_the_middle_of_the_widest_best_plateau(metric: Metric, table: Scored) -> None:
    targets, probabilities = table
    if not targets.any():
        targets[0, 0] = 1  # F1 over no label is NaN, which has no plateau
    (threshold, *_) = fitted("global", metric, targets, probabilities)
    assert threshold == middle_of_the_widest_best_plateau(metric, targets, probabilities)


@pytest.mark.parametrize("name", ["f1_macro", "accuracy_cells"])
@quick
@given(table=scored(max_rows=5, max_labels=3))
def test_no_thresholds_beat_those_of_each_label_for_a_mean_over_labels(name: str, table: Scored) -> None:
    targets, probabilities = table
    metric = METRICS[name]
    targets[0] = 1  # a label without positives is not fitted
    found = value_at(metric, targets, probabilities, fitted("per_label", metric, targets, probabilities))
    choices = itertools.product(*(every_threshold(column) for column in probabilities.T))
    best = max(value_at(metric, targets, probabilities, np.array(thresholds)) for thresholds in choices)
    assert found == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("metric", [METRICS["f1_macro"], METRICS["accuracy_cells"]], ids=lambda metric: metric.name)
@quick
@given(table=scored())
def test_each_label_takes_the_best_threshold_of_its_criterion(metric: Metric, table: Scored) -> None:
    targets, probabilities = table
    thresholds = fitted("per_label", metric, targets, probabilities)

    def value(label: int, threshold: float) -> float:
        columns = targets[:, [label]], (probabilities[:, [label]] >= threshold).astype(np.uint8)
        assert metric.criterion is not None
        return float(metric.criterion.per_label(count(*columns, "table")))

    for label in np.flatnonzero(targets.any(axis=0)).tolist():
        best = max(value(label, threshold) for threshold in every_threshold(probabilities[:, label]))
        assert value(label, thresholds[label]) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("name", ["f1_macro", "f1_micro", "accuracy_cells"])
def test_thresholds_per_label_are_best_for_the_metric_itself(name: str) -> None:
    """Four positives at 0.9, 0.6, 0.5, 0.4 among many negatives: three of them are best for F1, one for accuracy."""
    scores = np.array([0.9, 0.7, 0.6, 0.58, 0.55, 0.5, 0.45, 0.42, 0.41, 0.4])
    targets = np.isin(scores, [0.9, 0.6, 0.5, 0.4]).astype(np.uint8)
    (threshold,) = fitted("per_label", METRICS[name], targets[:, None], scores[:, None])
    expected = {"f1": (0.45 + 0.5) / 2, "accuracy": (0.7 + 0.9) / 2}
    assert threshold == pytest.approx(expected[name.split("_")[0]])


@by_decision_metric
def test_a_label_without_positives_takes_the_global_threshold(metric: Metric) -> None:
    rng = np.random.default_rng(3)
    probabilities = rng.random((60, 3))
    targets = (rng.random((60, 3)) < probabilities * [1, 0.3, 0]).astype(np.uint8)
    (shared, *_) = fitted("global", metric, targets, probabilities)
    own = fitted("per_label", metric, targets, probabilities)
    assert own[2] == shared
    assert shared not in own[:2]


@pytest.mark.parametrize(("name", "stays"), [("f1_macro", True), ("f1_micro", False)])
def test_only_micro_f1_moves_its_threshold_for_a_label_without_positives(name: str, stays: bool) -> None:
    rng = np.random.default_rng(4)
    probabilities = rng.random((50, 3))
    targets = (rng.random((50, 3)) < probabilities).astype(np.uint8)
    targets[:, 2] = 0
    (without, *_) = fitted("global", METRICS[name], targets[:, :2], probabilities[:, :2])
    scores = probabilities[:, :2]
    probabilities[:, 2] = scores[scores > without].min()  # all wrong, just above the threshold
    (threshold, *_) = fitted("global", METRICS[name], targets, probabilities)
    assert bool(threshold == without) is stays


@pytest.mark.parametrize(
    ("scores", "targets", "expected"),
    [
        ([0.2, 0.8], [0, 1], 0.5),  # between the two
        ([0.2, 0.8], [1, 1], 0.1),  # everything: from 0 to the lowest
        ([0.0, 1.0], [1, 1], 0.0),  # everything, a score of 0 included
        ([0.0, 1.0], [0, 1], 0.5),
        ([0.2, 0.8], [0, 0], 0.9),  # nothing: from the highest to 1
        ([0.2, 1.0], [0, 0], ABOVE_ONE),  # nothing, although a score is 1
        ([0.3, 0.3, 0.9], [0, 1, 0], 0.95),  # one right and one wrong at 0.3: a threshold cannot separate ties
        ([1 - 2.0**-53, 0.5], [0, 0], 1.0),  # no number lies between the highest score and 1
        ([0.5, np.nextafter(0.5, 1.0)], [0, 1], np.nextafter(0.5, 1.0)),
    ],
)
def test_a_threshold_lies_in_the_middle_of_its_plateau(
    scores: list[float], targets: list[int], expected: float
) -> None:
    columns = np.array(targets, np.uint8)[:, None], np.array(scores)[:, None]
    (threshold,) = fitted("global", METRICS["accuracy_cells"], *columns)
    assert threshold == pytest.approx(expected, rel=0, abs=0)


def test_of_two_best_plateaus_the_wider_is_taken() -> None:
    # Two of three cells are right with nothing decided and with the two highest scores decided.
    targets = np.array([[0], [1], [0]], np.uint8)
    scores = np.array([[0.9], [0.4], [0.35]])
    assert fitted("global", METRICS["accuracy_cells"], targets, scores) == pytest.approx([0.95])
    scores = np.array([[0.99], [0.9], [0.3]])
    assert fitted("global", METRICS["accuracy_cells"], targets, scores) == pytest.approx([0.6])


@by_decision_metric
def test_without_positives_all_thresholds_are_equal_for_f1_which_takes_one_half(metric: Metric) -> None:
    table = np.zeros((4, 2), np.uint8), np.full((4, 2), 0.3)
    expected = 0.5 if metric.name.startswith("f") else (0.3 + 1.0) / 2
    for policy in ("global", "per_label"):
        assert fitted(policy, metric, *table) == pytest.approx([expected, expected])


@by_decision_metric
@quick
@given(table=scored(min_rows=2), seed=st.integers(0, 2**32))
def test_the_order_of_rows_and_labels_changes_nothing(metric: Metric, table: Scored, seed: int) -> None:
    targets, probabilities = table
    rng = np.random.default_rng(seed)
    rows, labels = rng.permutation(targets.shape[0]), rng.permutation(targets.shape[1])
    if metric.criterion is not None and metric.criterion.unit == "row":
        labels = np.arange(targets.shape[1])  # coordinate ascent visits the labels in order
    for policy in POLICIES:
        once = fitted(policy, metric, targets, probabilities)
        again = fitted(policy, metric, targets[rows][:, labels], probabilities[rows][:, labels])
        if metric.criterion is not None and metric.criterion.unit == "row" and not np.array_equal(again, once[labels]):
            # a mean over rows in another order differs in the last bit, which may decide between equal thresholds
            values = [metric.function(targets, RowRules().apply(probabilities, found)).value for found in (once, again)]
            assert values[0] == pytest.approx(values[1], abs=1e-12)
            continue
        np.testing.assert_array_equal(again, once[labels])


@pytest.mark.parametrize("name", ["f1_samples", "f1_macro"])
def test_a_large_table_has_the_best_global_threshold(name: str) -> None:
    rng = np.random.default_rng(5)
    probabilities = rng.integers(0, 51, (70_001, 3)) / 50
    targets = (rng.random(probabilities.shape) < probabilities**2).astype(np.uint8)
    (threshold, *_) = fitted("global", METRICS[name], targets, probabilities)
    candidates = every_threshold(probabilities)
    values = [value_at(METRICS[name], targets, probabilities, np.asarray(t)) for t in candidates]
    best = int(np.argmax(values))
    assert threshold == pytest.approx((candidates[best - 1] + candidates[best]) / 2)


@pytest.mark.parametrize("name", ["auc_macro", "map", "map_voc", "log_loss"])
def test_a_metric_of_probabilities_gets_the_thresholds_of_macro_f1(name: str) -> None:
    rng = np.random.default_rng(6)
    table = (rng.random((40, 3)) < 0.4).astype(np.uint8), rng.random((40, 3))
    for policy in POLICIES:
        expected = fitted(policy, METRICS["f1_macro"], *table)
        np.testing.assert_array_equal(fitted(policy, METRICS[name], *table), expected)


def test_fixed_is_one_half() -> None:
    table = np.zeros((2, 3), np.uint8), np.full((2, 3), 0.9)
    assert fitted("fixed", METRICS["f1_macro"], *table).tolist() == [0.5, 0.5, 0.5]


def test_shrunk_thresholds_are_weighted_means_of_logits() -> None:
    own, shared = np.array([0.2, 0.2, 0.2, ABOVE_ONE]), np.full(4, 0.5)
    shrunk = shrink(own, shared, np.array([0, 10, 10**9, 10**9]), 10.0)
    np.testing.assert_allclose(shrunk, [0.5, 1 / 3, 0.2, 1 - 1e-6], rtol=1e-6)  # odds 1/4 and 1: their mean is 1/2
