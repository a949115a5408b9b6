from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from pipeline.metrics.counts import accuracy, exact_match, f1, f2
from pipeline.metrics.registry import METRICS, Metric, get_metric
from pipeline.metrics.targets import Floats
from pipeline.thresholds.coordinate_ascent import FEWEST_CANDIDATES, ascend, candidate_thresholds
from pipeline.thresholds.dinkelbach import best_for_micro_f, beta_squared
from pipeline.thresholds.filled_rows import FilledLines
from pipeline.thresholds.policies import fit_thresholds
from pipeline.thresholds.row_rules import EmptyPolicy, RowRules
from pipeline.thresholds.threshold_problem import ThresholdProblem, threshold_problem
from tests.thresholds.tables import Scored, masked, scored

quick = settings(deadline=None, max_examples=60)
BY_ROW = [METRICS[name] for name in ("f1_samples", "f2_samples", "accuracy_subset")]
by_row = pytest.mark.parametrize("metric", BY_ROW, ids=lambda metric: metric.name)


def bare(metric: Metric) -> Metric:
    """The same metric as a user's own function has it: without a criterion."""
    return replace(metric, criterion=None)


def best_on_a_line(problem: ThresholdProblem, thresholds: Floats, label: int) -> float:
    values = []
    for candidate in candidate_thresholds(problem.probabilities[problem.known[:, label], label]):
        moved = thresholds.copy()
        moved[label] = candidate
        values.append(problem.value(moved))
    return max(values)


@quick
@given(table=scored(max_rows=5, max_labels=3))
def test_no_thresholds_beat_dinkelbachs_for_an_f_over_all_cells(table: Scored) -> None:
    targets, probabilities = table
    problem = threshold_problem(METRICS["f1_micro"], targets, probabilities)
    fitted = problem.value(best_for_micro_f(problem, 1.0))
    choices = itertools.product(*(candidate_thresholds(column) for column in probabilities.T))
    assert fitted == pytest.approx(max(problem.value(np.array(choice)) for choice in choices), abs=1e-12)


def test_an_f_is_known_by_its_values() -> None:
    assert beta_squared(f1) == pytest.approx(1.0)
    assert beta_squared(f2) == pytest.approx(4.0)
    assert beta_squared(accuracy) is None
    assert beta_squared(exact_match) is None


@by_row
@quick
@given(table=masked())
def test_no_move_of_one_threshold_gains_after_the_ascent(metric: Metric, table: tuple[Floats, Floats]) -> None:
    problem = threshold_problem(metric, *table)
    start = np.full(problem.labels, 0.5)
    thresholds = ascend(problem, start)
    assert problem.value(thresholds) >= problem.value(start)
    for label in np.flatnonzero(problem.positives).tolist():
        assert problem.value(thresholds) >= best_on_a_line(problem, thresholds, label) - 1e-12


@by_row
@quick
@given(table=masked())
def test_counts_and_the_metric_itself_climb_equally_high_on_the_first_line(
    metric: Metric, table: tuple[Floats, Floats]
) -> None:
    """One label: both searches are exhaustive, so they end at the same value."""
    problem = threshold_problem(metric, table[0][:, :1], table[1][:, :1])
    slow = replace(problem, metric=bare(metric))
    start = np.array([0.5])
    assert problem.value(ascend(problem, start)) == pytest.approx(problem.value(ascend(slow, start)), abs=1e-12)


FILLED = ["f1_samples", "accuracy_subset", "f2_micro", "hamming", "mcc_micro", "f1_macro", "mcc_macro"]


@pytest.mark.parametrize("name", FILLED)
@pytest.mark.parametrize("empty", ["argmax", 0])
@settings(deadline=None, max_examples=30)
@given(table=masked())
def test_no_move_of_one_threshold_gains_where_empty_rows_are_filled(
    name: str, empty: EmptyPolicy, table: tuple[Floats, Floats]
) -> None:
    problem = threshold_problem(get_metric(name), *table, RowRules(empty))
    start = np.full(problem.labels, 0.5)
    thresholds = ascend(problem, start)
    assert problem.value(thresholds) >= problem.value(start)
    for label in np.flatnonzero(problem.positives).tolist():
        assert problem.value(thresholds) >= best_on_a_line(problem, thresholds, label) - 1e-12


@pytest.mark.parametrize("name", FILLED)
@pytest.mark.parametrize("empty", ["argmax", 2])
def test_counts_of_filled_rows_are_the_metric_itself(name: str, empty: EmptyPolicy) -> None:
    """After moves to and fro, with unknown cells and ties."""
    rng = np.random.default_rng(4)
    probabilities = rng.integers(0, 30, (300, 4)) / 60
    targets = (rng.random((300, 4)) < probabilities).astype(np.float64)
    targets[rng.random((300, 4)) < 0.1] = np.nan
    problem = threshold_problem(get_metric(name), targets, probabilities, RowRules(empty))
    lines = FilledLines(problem, np.full(4, 0.3))
    assert lines.follows()
    for threshold, label in [(0.1, 0), (0.45, 1), (0.49, 2), (0.2, 3), (0.9, 0), (0.9, 1), (0.9, 2), (0.05, 2)]:
        lines._move(label, threshold)
        assert lines.follows()
    np.testing.assert_array_equal(lines.thresholds, [0.9, 0.9, 0.05, 0.2])


@by_row
@quick
@given(table=scored(max_rows=8, max_labels=3))
def test_thresholds_by_label_are_never_below_the_global_one(metric: Metric, table: Scored) -> None:
    for rules in (RowRules(), RowRules("argmax", max_labels=2)):
        problem = threshold_problem(metric, *table, rules)
        shared, own = (fit_thresholds(name, metric, *table, rules=rules) for name in ("global", "per_label"))
        assert problem.value(own) >= problem.value(shared) - 1e-12


def test_a_metric_without_criterion_is_fitted_by_its_values_alone() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random((200, 3))
    targets = (rng.random((200, 3)) < probabilities ** [1, 3, 6]).astype(np.uint8)
    stranger = bare(METRICS["f1_samples"])
    known = threshold_problem(METRICS["f1_samples"], targets, probabilities)
    for policy in ("global", "per_label"):
        by_value = known.value(fit_thresholds(policy, stranger, targets, probabilities))
        by_count = known.value(fit_thresholds(policy, METRICS["f1_samples"], targets, probabilities))
        assert by_value == pytest.approx(by_count, abs=0.01)  # 600 scores, of which 64 are tried and 64 more


def test_a_metric_to_be_small_is_made_small() -> None:
    def wrong(targets: Floats, decisions: Floats) -> object:
        result = METRICS["accuracy_cells"].function(targets, decisions)
        return result._replace(value=1 - result.value)

    hamming = Metric("hamming", "decisions", False, wrong)  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    probabilities = rng.random((FEWEST_CANDIDATES // 2, 2))
    targets = (probabilities > [0.3, 0.8]).astype(np.uint8)
    for policy in ("global", "per_label"):
        fitted = fit_thresholds(policy, hamming, targets, probabilities)
        best = fit_thresholds(policy, METRICS["accuracy_cells"], targets, probabilities)
        value = METRICS["accuracy_cells"].function
        decided = [(probabilities >= thresholds).astype(np.uint8) for thresholds in (fitted, best)]
        assert value(targets, decided[0]).value == value(targets, decided[1]).value


def test_rules_take_part_in_the_objective() -> None:
    """Rows hold one label each, so the arg-max is always right: with it a threshold need not risk anything."""
    rng = np.random.default_rng(2)
    targets = np.eye(3, dtype=np.uint8)[rng.integers(0, 3, 60)]
    probabilities = np.clip(0.4 * targets + 0.4 * rng.random((60, 3)), 0, 1)
    metric, rules = METRICS["f1_samples"], RowRules("argmax", max_labels=1)
    problem = threshold_problem(metric, targets, probabilities, rules)
    blind = problem.value(fit_thresholds("per_label", metric, targets, probabilities))
    seeing = problem.value(fit_thresholds("per_label", metric, targets, probabilities, rules=rules))
    assert seeing >= blind
    assert seeing == pytest.approx(problem.value(np.full(3, 1.0)), abs=1e-12) or seeing > blind


@pytest.mark.parametrize("name", ["f1_macro", "f1_micro", "f1_samples", "accuracy_cells", "accuracy_subset"])
@pytest.mark.parametrize("policy", ["global", "per_label", "shrunk", "prevalence"])
def test_what_is_predicted_for_unknown_cells_changes_no_threshold(policy: str, name: str) -> None:
    rng = np.random.default_rng(3)
    probabilities = rng.integers(0, 40, (80, 4)) / 40
    targets = (rng.random((80, 4)) < probabilities).astype(np.float64)
    unknown = rng.random((80, 4)) < 0.3
    targets[unknown] = np.nan
    targets[5] = np.nan
    other = np.where(np.isnan(targets), 1 - probabilities, probabilities)
    once, again = (fit_thresholds(policy, METRICS[name], targets, table) for table in (probabilities, other))
    np.testing.assert_array_equal(once, again)
