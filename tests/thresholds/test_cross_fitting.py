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
from pipeline.thresholds.policies import decide, fit_thresholds
from pipeline.thresholds.row_rules import EmptyPolicy, RowRules

DECISIONS = [name for name, metric in METRICS.items() if metric.takes == "decisions"]
PROBABILITIES = [name for name, metric in METRICS.items() if metric.takes == "probabilities"]
FITTED = ["global", "per_label"]


def out_of_fold(seed: int = 0, rows: int = 120, labels: int = 4) -> tuple[Bits, Floats, Ints]:
    """Targets, probabilities that know something of them, and parts named 2, 5 and 9 of unequal size."""
    rng = np.random.default_rng(seed)
    probabilities = rng.random((rows, labels))
    targets = (rng.random((rows, labels)) < probabilities**2).astype(np.uint8)
    return targets, probabilities, rng.choice([5, 9, 2], rows, p=[0.5, 0.3, 0.2])


def score(
    name: str, data: tuple[Bits, Floats, Ints], policy: str = "per_label", empty: EmptyPolicy = "none"
) -> OutOfFoldScores:
    return score_out_of_fold(METRICS[name], *data, policy=policy, rules=RowRules(empty))


@pytest.mark.parametrize("policy", FITTED)
@pytest.mark.parametrize("name", list(METRICS))
def test_a_parts_thresholds_do_not_look_at_the_part(name: str, policy: str) -> None:
    targets, probabilities, parts = out_of_fold()
    before = score(name, (targets, probabilities, parts), policy)
    for row, part in enumerate([2, 5, 9]):
        inside = parts == part
        changed = np.where(inside[:, None], 1 - targets, targets), np.where(inside[:, None], 0.01, probabilities)
        after = score(name, (*changed, parts), policy)
        np.testing.assert_array_equal(after.part_thresholds[row], before.part_thresholds[row])
        assert (after.part_thresholds != before.part_thresholds).any()  # those of the others do


@pytest.mark.parametrize("empty", ["none", "argmax", 1])
@pytest.mark.parametrize("policy", FITTED)
@pytest.mark.parametrize("name", DECISIONS)
def test_each_score_is_the_metric_of_its_decisions(name: str, policy: str, empty: EmptyPolicy) -> None:
    targets, probabilities, parts = data = out_of_fold()
    metric, scores = METRICS[name], score(name, data, policy, empty)

    assert scores.fitted
    rules = RowRules(empty)
    thresholds = fit_thresholds(policy, metric, targets, probabilities, rules=rules)
    np.testing.assert_array_equal(scores.thresholds, thresholds)
    in_sample = decide(probabilities, thresholds, empty=empty)
    cross_fitted = np.zeros_like(targets)
    for part in (2, 5, 9):
        inside, others = np.flatnonzero(parts == part), np.flatnonzero(parts != part)
        unseen = fit_thresholds(policy, metric, targets[others], probabilities[others], rules=rules)
        cross_fitted[inside] = decide(probabilities[inside], unseen, empty=empty)
    assert scores.part_ids.tolist() == [2, 5, 9]
    for decisions, expected, folded in (
        (scores.in_sample_decisions, in_sample, scores.in_sample),
        (scores.cross_fitted_decisions, cross_fitted, scores.cross_fitted),
    ):
        np.testing.assert_array_equal(decisions, expected)
        assert folded.pooled.value == metric.function(targets, expected).value
        folds = [metric.function(targets[parts == part], expected[parts == part]).value for part in (2, 5, 9)]
        assert list(folded.folds) == folds
        assert folded.mean == pytest.approx(np.mean(folds))


def test_the_policy_for_empty_rows_is_part_of_the_score() -> None:
    targets = np.array([[1, 0], [0, 1]] * 4, np.uint8)
    probabilities = np.where(targets == 1, 0.4, 0.1)
    data = targets, probabilities, np.arange(8) % 2
    expected: dict[EmptyPolicy, float] = {"none": 0.0, "argmax": 1.0, 0: 0.5}
    for empty, value in expected.items():
        scores = score("accuracy_subset", data, "fixed", empty)
        assert scores.in_sample.pooled.value == scores.cross_fitted.pooled.value == value


@pytest.mark.parametrize("policy", FITTED)
def test_thresholds_fitted_to_noise_flatter_only_the_rows_they_have_seen(policy: str) -> None:
    rng = np.random.default_rng(1)
    targets = (rng.random((60, 30)) < 0.05).astype(np.uint8)
    scores = score("f1_macro", (targets, rng.random(targets.shape), np.arange(60) % 5), policy)
    assert scores.cross_fitted.pooled.value < scores.in_sample.pooled.value


@pytest.mark.parametrize("name", PROBABILITIES)
def test_a_metric_of_probabilities_is_scored_on_them_and_nothing_is_fitted(name: str) -> None:
    targets, probabilities, parts = data = out_of_fold()
    scores = score(name, data)
    assert not scores.fitted
    for folded in (scores.in_sample, scores.cross_fitted):
        assert folded.pooled.value == METRICS[name].function(targets, probabilities).value
        assert folded.folds == tuple(
            METRICS[name].function(targets[parts == part], probabilities[parts == part]).value for part in (2, 5, 9)
        )
    as_macro_f1 = score("f1_macro", data)
    np.testing.assert_array_equal(scores.cross_fitted_decisions, as_macro_f1.cross_fitted_decisions)
    np.testing.assert_array_equal(scores.in_sample_decisions, as_macro_f1.in_sample_decisions)


def test_fixed_thresholds_are_not_called_fitted() -> None:
    scores = score("f1_macro", out_of_fold(), "fixed")
    assert not scores.fitted
    assert scores.in_sample.folds == scores.cross_fitted.folds
    assert scores.in_sample.pooled.value == scores.cross_fitted.pooled.value


def test_the_order_of_rows_changes_nothing() -> None:
    targets, probabilities, parts = data = out_of_fold()
    order = np.random.default_rng(2).permutation(parts.size)
    once, again = score("f1_macro", data), score("f1_macro", (targets[order], probabilities[order], parts[order]))
    np.testing.assert_array_equal(again.part_thresholds, once.part_thresholds)
    np.testing.assert_array_equal(again.cross_fitted_decisions, once.cross_fitted_decisions[order])
    assert again.cross_fitted.folds == once.cross_fitted.folds


def test_a_fold_without_any_positive_is_nan_and_out_of_the_mean() -> None:
    targets, probabilities, parts = out_of_fold()
    targets[parts == 5] = 0
    folded = score("f1_macro", (targets, probabilities, parts)).cross_fitted
    assert [math.isnan(value) for value in folded.folds] == [False, True, False]
    assert folded.mean == pytest.approx((folded.folds[0] + folded.folds[2]) / 2)
    assert math.isnan(FoldedScore(MetricValue(math.nan), (math.nan, math.nan), Interval(math.nan, math.nan)).mean)


def test_one_part_leaves_nothing_to_fit_on() -> None:
    targets, probabilities, parts = out_of_fold()
    with pytest.raises(ValueError, match=r"at least 2 parts, .* got 1"):
        score("f1_macro", (targets, probabilities, np.zeros_like(parts)))


def test_parts_that_do_not_fit_the_rows_are_refused() -> None:
    targets, probabilities, parts = out_of_fold()
    with pytest.raises(ValueError, match=r"a part for each row, \(120,\), got \(119,\)"):
        score("f1_macro", (targets, probabilities, parts[1:]))


def test_an_unknown_policy_is_a_mistake_of_the_config() -> None:
    with pytest.raises(ConfigError, match="unknown threshold policy 'best'"):
        score("map", out_of_fold(), "best")


@pytest.mark.parametrize("policy", ["fixed", "per_label"])
def test_scoring_makes_no_further_copy_of_the_probabilities(policy: str) -> None:
    rng = np.random.default_rng(0)
    targets = np.asfortranarray((rng.random((1_000, 500)) < 0.05).astype(np.uint8))
    probabilities = np.asfortranarray(np.clip(0.3 * targets + 0.7 * rng.random(targets.shape), 0, 1))
    tracemalloc.start()
    try:
        honest = score_out_of_fold(
            METRICS["f1_macro"], targets, probabilities, np.arange(1_000) % 5, policy=policy, resamples=20
        )
        per_label_table(targets, probabilities, honest.cross_fitted_decisions)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.85 * probabilities.nbytes
