from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.metrics.bootstrap import Interval
from pipeline.metrics.label_table import per_label_table
from pipeline.metrics.means import MetricValue
from pipeline.metrics.registry import METRICS
from pipeline.metrics.targets import Bits, Floats, Ints
from pipeline.thresholds.cross_fitting import FoldedScore, OutOfFoldScores, score_out_of_fold
from pipeline.thresholds.row_rules import EmptyPolicy, RowRules
from tests.thresholds.tables import fitted

DECISIONS = [name for name, metric in METRICS.items() if metric.takes == "decisions"]
PROBABILITIES = [name for name, metric in METRICS.items() if metric.takes == "probabilities"]
by_policy = pytest.mark.parametrize("policy", ["global", "per_label"])


def out_of_fold(seed: int = 0, rows: int = 120, labels: int = 4) -> tuple[Bits, Floats, Ints]:
    """Targets, probabilities that predict them, and folds 2, 5 and 9 of unequal size."""
    rng = np.random.default_rng(seed)
    probabilities = rng.random((rows, labels))
    targets = (rng.random((rows, labels)) < probabilities**2).astype(np.uint8)
    return targets, probabilities, rng.choice([5, 9, 2], rows, p=[0.5, 0.3, 0.2])


def score(
    name: str, data: tuple[Bits, Floats, Ints], policy: str = "per_label", empty: EmptyPolicy = "none"
) -> OutOfFoldScores:
    return score_out_of_fold(METRICS[name], *data, policy=policy, rules=RowRules(empty))


@by_policy
@pytest.mark.parametrize("name", list(METRICS))
def test_thresholds_of_a_fold_do_not_depend_on_its_rows(name: str, policy: str) -> None:
    targets, probabilities, folds = out_of_fold()
    before = score(name, (targets, probabilities, folds), policy)
    for row, fold in enumerate([2, 5, 9]):
        inside = folds == fold
        changed = np.where(inside[:, None], 1 - targets, targets), np.where(inside[:, None], 0.01, probabilities)
        after = score(name, (*changed, folds), policy)
        np.testing.assert_array_equal(after.fold_thresholds[row], before.fold_thresholds[row])
        assert (after.fold_thresholds != before.fold_thresholds).any()  # those of the other folds do


@pytest.mark.parametrize("empty", ["none", "argmax", 1])
@by_policy
@pytest.mark.parametrize("name", DECISIONS)
def test_each_score_is_the_metric_of_its_decisions(name: str, policy: str, empty: EmptyPolicy) -> None:
    targets, probabilities, folds = data = out_of_fold()
    metric, scores, rules = METRICS[name], score(name, data, policy, empty), RowRules(empty)
    assert scores.fitted
    thresholds = fitted(policy, metric, targets, probabilities, rules)
    np.testing.assert_array_equal(scores.thresholds, thresholds)
    cross_fitted = np.zeros_like(targets)
    for fold in (2, 5, 9):
        inside, others = folds == fold, folds != fold
        unseen = fitted(policy, metric, targets[others], probabilities[others], rules)
        cross_fitted[inside] = rules.apply(probabilities[inside], unseen)
    assert scores.fold_ids.tolist() == [2, 5, 9]
    for decisions, expected, folded in (
        (scores.in_sample_decisions, rules.apply(probabilities, thresholds), scores.in_sample),
        (scores.cross_fitted_decisions, cross_fitted, scores.cross_fitted),
    ):
        np.testing.assert_array_equal(decisions, expected)
        assert folded.pooled.value == metric.function(targets, expected).value
        by_fold = [metric.function(targets[folds == fold], expected[folds == fold]).value for fold in (2, 5, 9)]
        assert list(folded.folds) == by_fold
        assert folded.mean == pytest.approx(np.mean(by_fold))


@pytest.mark.parametrize(("empty", "value"), [("none", 0.0), ("argmax", 1.0), (0, 0.5)])
def test_the_rule_for_empty_rows_is_part_of_the_score(empty: EmptyPolicy, value: float) -> None:
    targets = np.array([[1, 0], [0, 1]] * 4, np.uint8)
    data = targets, np.where(targets == 1, 0.4, 0.1), np.arange(8) % 2
    scores = score("accuracy_subset", data, "fixed", empty)
    assert scores.in_sample.pooled.value == scores.cross_fitted.pooled.value == value


@by_policy
def test_thresholds_fitted_to_noise_flatter_only_the_in_sample_score(policy: str) -> None:
    rng = np.random.default_rng(1)
    targets = (rng.random((60, 30)) < 0.05).astype(np.uint8)
    scores = score("f1_macro", (targets, rng.random(targets.shape), np.arange(60) % 5), policy)
    assert scores.cross_fitted.pooled.value < scores.in_sample.pooled.value


@pytest.mark.parametrize("name", PROBABILITIES)
def test_a_metric_of_probabilities_is_scored_on_them_and_nothing_is_fitted(name: str) -> None:
    targets, probabilities, folds = data = out_of_fold()
    scores = score(name, data)
    assert not scores.fitted
    for folded in (scores.in_sample, scores.cross_fitted):
        assert folded.pooled.value == METRICS[name].function(targets, probabilities).value
        assert folded.folds == tuple(
            METRICS[name].function(targets[folds == fold], probabilities[folds == fold]).value for fold in (2, 5, 9)
        )
    as_macro_f1 = score("f1_macro", data)
    np.testing.assert_array_equal(scores.cross_fitted_decisions, as_macro_f1.cross_fitted_decisions)
    np.testing.assert_array_equal(scores.in_sample_decisions, as_macro_f1.in_sample_decisions)


def test_fixed_thresholds_are_not_fitted() -> None:
    scores = score("f1_macro", out_of_fold(), "fixed")
    assert not scores.fitted
    assert scores.in_sample.folds == scores.cross_fitted.folds
    assert scores.in_sample.pooled.value == scores.cross_fitted.pooled.value


def test_the_order_of_rows_changes_nothing() -> None:
    targets, probabilities, folds = data = out_of_fold()
    order = np.random.default_rng(2).permutation(folds.size)
    once, again = score("f1_macro", data), score("f1_macro", (targets[order], probabilities[order], folds[order]))
    np.testing.assert_array_equal(again.fold_thresholds, once.fold_thresholds)
    np.testing.assert_array_equal(again.cross_fitted_decisions, once.cross_fitted_decisions[order])
    assert again.cross_fitted.folds == once.cross_fitted.folds


def test_a_fold_without_positives_is_nan_and_left_out_of_the_mean() -> None:
    targets, probabilities, folds = out_of_fold()
    targets[folds == 5] = 0
    folded = score("f1_macro", (targets, probabilities, folds)).cross_fitted
    assert [math.isnan(value) for value in folded.folds] == [False, True, False]
    assert folded.mean == pytest.approx((folded.folds[0] + folded.folds[2]) / 2)
    assert math.isnan(FoldedScore(MetricValue(math.nan), (math.nan, math.nan), Interval(math.nan, math.nan)).mean)


def test_folds_that_leave_nothing_to_fit_on_or_do_not_match_the_rows_are_refused() -> None:
    targets, probabilities, folds = out_of_fold()
    with pytest.raises(ValueError, match=r"at least 2 folds, .* got 1"):
        score("f1_macro", (targets, probabilities, np.zeros_like(folds)))
    with pytest.raises(ValueError, match=r"a fold for each row, \(120,\), got \(119,\)"):
        score("f1_macro", (targets, probabilities, folds[1:]))


def test_an_unknown_policy_is_a_mistake_of_the_config() -> None:
    with pytest.raises(ConfigError, match="unknown threshold policy 'best'"):
        score("map", out_of_fold(), "best")


@pytest.mark.parametrize("policy", ["fixed", "per_label"])
def test_scoring_does_not_copy_the_probabilities(policy: str) -> None:
    rng = np.random.default_rng(0)
    targets = np.asfortranarray((rng.random((1_000, 500)) < 0.05).astype(np.uint8))
    probabilities = np.asfortranarray(np.clip(0.3 * targets + 0.7 * rng.random(targets.shape), 0, 1))
    tracemalloc.start()
    try:
        scores = score_out_of_fold(
            METRICS["f1_macro"], targets, probabilities, np.arange(1_000) % 5, policy=policy, resamples=20
        )
        per_label_table(targets, probabilities, scores.cross_fitted_decisions)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.85 * probabilities.nbytes
