from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from pipeline.metrics.counts import accuracy, exact_match, f1, f2
from pipeline.metrics.registry import METRICS, Metric, get_metric
from pipeline.metrics.targets import Floats
from pipeline.thresholds.fitting.coordinate_ascent import MOST_CANDIDATES, ascend, candidate_thresholds
from pipeline.thresholds.fitting.dinkelbach import beta_squared, micro_f_thresholds
from pipeline.thresholds.fitting.filled_rows import FilledLines
from pipeline.thresholds.row_rules import EmptyPolicy, RowRules
from pipeline.thresholds.threshold_problem import ThresholdProblem, threshold_problem
from tests.thresholds.tables import Scored, by_metric, fitted, masked, quick, scored

by_row_metric = by_metric(*(METRICS[name] for name in ("f1_samples", "f2_samples", "accuracy_subset")))


def assert_no_single_move_gains(problem: ThresholdProblem) -> None:
    start = np.full(problem.labels, 0.5)
    thresholds = ascend(problem, start)
    assert problem.value(thresholds) >= problem.value(start)
    for label in np.flatnonzero(problem.positives).tolist():
        for candidate in candidate_thresholds(problem.probabilities[problem.known[:, label], label]):
            moved = thresholds.copy()
            moved[label] = candidate
            assert problem.value(thresholds) >= problem.value(moved) - 1e-12


@quick
@given(table=scored(max_rows=5, max_labels=3))
def test_no_thresholds_beat_dinkelbachs_for_an_f_over_all_cells(table: Scored) -> None:
    targets, probabilities = table
    problem = threshold_problem(METRICS["f1_micro"], targets, probabilities)
    found = problem.value(micro_f_thresholds(problem, 1.0))
    choices = itertools.product(*(candidate_thresholds(column) for column in probabilities.T))
    assert found == pytest.approx(max(problem.value(np.array(choice)) for choice in choices), abs=1e-12)


def test_an_f_is_recognised_by_its_values() -> None:
    assert beta_squared(f1) == pytest.approx(1.0)
    assert beta_squared(f2) == pytest.approx(4.0)
    assert beta_squared(accuracy) is None
    assert beta_squared(exact_match) is None


@by_row_metric
@quick
@given(table=masked())
def test_no_single_move_gains_after_the_ascent(metric: Metric, table: tuple[Floats, Floats]) -> None:
    assert_no_single_move_gains(threshold_problem(metric, *table))


@by_row_metric
@quick
@given(table=masked())
def test_searches_by_counts_and_by_values_find_the_same_best_value(
    metric: Metric, table: tuple[Floats, Floats]
) -> None:
    """With one label both searches are exhaustive."""
    problem = threshold_problem(metric, table[0][:, :1], table[1][:, :1])
    by_values = replace(problem, metric=replace(metric, criterion=None))
    start = np.array([0.5])
    assert problem.value(ascend(problem, start)) == pytest.approx(problem.value(ascend(by_values, start)), abs=1e-12)


FILLED = ["f1_samples", "accuracy_subset", "f2_micro", "hamming", "mcc_micro", "f1_macro", "mcc_macro"]


@pytest.mark.parametrize("name", FILLED)
@pytest.mark.parametrize("empty", ["argmax", 0])
@settings(deadline=None, max_examples=30)
@given(table=masked())
def test_no_single_move_gains_where_empty_rows_fall_back(
    name: str, empty: EmptyPolicy, table: tuple[Floats, Floats]
) -> None:
    assert_no_single_move_gains(threshold_problem(get_metric(name), *table, RowRules(empty)))


@pytest.mark.parametrize("name", FILLED)
@pytest.mark.parametrize("empty", ["argmax", 2])
def test_counts_of_filled_rows_match_the_metric(name: str, empty: EmptyPolicy) -> None:
    """After several moves, with unknown cells and ties."""
    rng = np.random.default_rng(4)
    probabilities = rng.integers(0, 30, (300, 4)) / 60
    targets = (rng.random((300, 4)) < probabilities).astype(np.float64)
    targets[rng.random((300, 4)) < 0.1] = np.nan
    lines = FilledLines(threshold_problem(get_metric(name), targets, probabilities, RowRules(empty)), np.full(4, 0.9))
    assert lines.matches_metric()
    for label in (0, 1, 2, 3, 0, 1, 2):
        lines.improve(label)
        assert lines.matches_metric()
    assert (lines.thresholds != 0.9).any()


@by_row_metric
@quick
@given(table=scored(max_rows=8, max_labels=3))
def test_thresholds_per_label_are_at_least_as_good_as_the_global_one(metric: Metric, table: Scored) -> None:
    for rules in (RowRules(), RowRules("argmax", max_labels=2)):
        problem = threshold_problem(metric, *table, rules)
        shared, own = (fitted(policy, metric, *table, rules) for policy in ("global", "per_label"))
        assert problem.value(own) >= problem.value(shared) - 1e-12


def test_a_metric_without_criterion_is_fitted_by_its_values() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random((200, 3))
    targets = (rng.random((200, 3)) < probabilities ** [1, 3, 6]).astype(np.uint8)
    metric = METRICS["f1_samples"]
    problem = threshold_problem(metric, targets, probabilities)
    for policy in ("global", "per_label"):
        by_value = problem.value(fitted(policy, replace(metric, criterion=None), targets, probabilities))
        by_count = problem.value(fitted(policy, metric, targets, probabilities))
        assert by_value == pytest.approx(by_count, abs=0.01)  # 600 scores, of which at most 128 are tried


@pytest.mark.parametrize("policy", ["global", "per_label"])
def test_a_metric_where_smaller_is_better_is_minimised(policy: str) -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.random((MOST_CANDIDATES // 2, 2))
    targets = (probabilities > [0.3, 0.8]).astype(np.uint8)
    accuracy_cells = METRICS["accuracy_cells"]
    values = [
        threshold_problem(accuracy_cells, targets, probabilities).value(fitted(policy, metric, targets, probabilities))
        for metric in (replace(METRICS["hamming"], criterion=None), accuracy_cells)
    ]
    assert values[0] == values[1]


def test_rules_are_part_of_the_objective() -> None:
    """Each row has one label, that of its highest probability: thresholds that leave the row empty are right."""
    rng = np.random.default_rng(2)
    targets = np.eye(3, dtype=np.uint8)[rng.integers(0, 3, 60)]
    probabilities = np.clip(0.4 * targets + 0.4 * rng.random((60, 3)), 0, 1)
    metric, rules = METRICS["f1_samples"], RowRules("argmax", max_labels=1)
    problem = threshold_problem(metric, targets, probabilities, rules)
    without = problem.value(fitted("per_label", metric, targets, probabilities))
    with_rules = problem.value(fitted("per_label", metric, targets, probabilities, rules))
    assert with_rules >= max(without, problem.value(np.ones(3)) - 1e-12)


@pytest.mark.parametrize("name", ["f1_macro", "f1_micro", "f1_samples", "accuracy_cells", "accuracy_subset"])
@pytest.mark.parametrize("policy", ["global", "per_label", "prevalence"])
def test_probabilities_of_unknown_cells_change_no_threshold(policy: str, name: str) -> None:
    rng = np.random.default_rng(3)
    probabilities = rng.integers(0, 40, (80, 4)) / 40
    targets = (rng.random((80, 4)) < probabilities).astype(np.float64)
    targets[rng.random((80, 4)) < 0.3] = np.nan
    targets[5] = np.nan
    other = np.where(np.isnan(targets), 1 - probabilities, probabilities)
    once, again = (fitted(policy, METRICS[name], targets, table) for table in (probabilities, other))
    np.testing.assert_array_equal(once, again)
