from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.metrics.registry import METRICS
from pipeline.metrics.targets import Bits, Floats, Ints
from pipeline.thresholds.cross_fitting import score_out_of_fold
from pipeline.thresholds.decision_rule import DecisionRule
from pipeline.thresholds.forecast import FEWEST_GROUPS, Forecast, forecast
from pipeline.thresholds.label_shift import raked
from pipeline.thresholds.row_rules import RowRules
from pipeline.thresholds.transfer import Transfer

CLIPS = np.arange(600) // 25


def rows(
    rng: np.random.Generator, count: int, models: int = 1, groups: Ints | None = None, rate: float = 0.5
) -> tuple[Bits, Floats]:
    """Targets (N, 4), and the probabilities (S, N, 4) of models that share three quarters of their error's variance."""
    targets = rng.random((count, 4)) < [rate, 0.3, 0.2, 0.2]
    shared = rng.normal(size=(count, 4))
    if groups is not None:
        shared = 0.6 * shared + 0.8 * rng.normal(size=(groups.max() + 1, 4))[groups]
    error = math.sqrt(0.75) * shared + 0.5 * rng.normal(size=(models, count, 4))
    return targets.astype(np.uint8), 1 / (1 + np.exp(-2.5 * (2.5 * (targets - 0.5) + error) + 1.0))


def fitted(
    name: str,
    targets: Bits,
    probabilities: Floats,
    parts: Ints,
    *,
    test: int | Floats = 300,
    models: int = 1,
    folds: int = 3,
    groups: Ints | None = None,
    transfer: Transfer = "value",
) -> tuple[float, Forecast, DecisionRule]:
    """The cross-validated score, its forecast, and the rule that decides the test."""
    metric = METRICS[name]
    scores = score_out_of_fold(metric, targets, probabilities, parts, policy="global", groups=groups, resamples=0)
    rule = DecisionRule(scores.calibration, scores.thresholds, probabilities, scores.policy, transfer, RowRules())
    expected = forecast(metric, targets, scores, rule, folds=folds, models=models, test=test, groups=groups)
    return scores.cross_fitted.pooled.value, expected, rule


def table(seed: int = 0, **options: Any) -> tuple[Bits, Floats, Ints]:
    rng = np.random.default_rng(seed)
    targets, probabilities = rows(rng, 600, **options)
    return targets, probabilities[0], CLIPS % 3


def width(of: Forecast) -> float:
    return of.high - of.low


@pytest.mark.parametrize("name", ["accuracy_cells", "f1_macro", "map", "log_loss"])
def test_fewer_test_rows_make_the_interval_wider(name: str) -> None:
    widths = [width(fitted(name, *table(), test=count)[1]) for count in (5_000, 600, 150)]
    assert widths[0] < widths[1] < widths[2]


def test_rows_that_are_alike_in_groups_make_the_interval_wider() -> None:
    data = table(groups=CLIPS)
    single, grouped = fitted("f1_macro", *data)[1], fitted("f1_macro", *data, groups=CLIPS)[1]
    assert width(grouped) > 1.2 * width(single)
    assert any("groups" in note for note in grouped.notes)


def test_few_groups_leave_no_forecast() -> None:
    groups = np.arange(600) % (FEWEST_GROUPS - 1)
    _, expected, _ = fitted("f1_macro", *table()[:2], groups, groups=groups)
    assert np.isnan([expected.value, expected.low, expected.high]).all()
    assert "4.0" in expected.notes[0]


def test_one_validation_fold_is_wide_and_says_why() -> None:
    one, three = (fitted("f1_macro", *table(), folds=folds)[1] for folds in (1, 3))
    assert width(one) > width(three)
    assert "one validation fold" in one.notes[0]
    assert not three.notes


@pytest.mark.parametrize("name", ["accuracy_cells", "log_loss"])
def test_one_model_and_a_mean_over_rows_forecast_the_cross_validated_score(name: str) -> None:
    score, expected, _ = fitted(name, *table(), test=600)
    assert expected.value == score
    assert set(expected.shifts.values()) == {0.0}


@pytest.mark.parametrize("name", ["f1_macro", "map", "log_loss"])
def test_the_mean_of_models_is_expected_to_be_better(name: str) -> None:
    one, two, five = (fitted(name, *table(), models=models)[1].value for models in (1, 2, 5))
    sign = 1 if METRICS[name].greater_is_better else -1
    assert sign * one < sign * two < sign * five


def test_folds_that_differ_by_more_than_their_rows_make_the_interval_wider() -> None:
    targets, probabilities, parts = table()
    rng = np.random.default_rng(0)
    worse = np.where((parts == 0)[:, None], rng.random(probabilities.shape), probabilities)
    mixed = rng.permutation(parts)
    apart, alike = (fitted("map", targets, worse, those)[1] for those in (parts, mixed))
    assert apart.deviations["folds"] > 2 * alike.deviations["folds"]


def test_a_metric_without_a_known_best_value_has_no_forecast() -> None:
    targets, probabilities, parts = table()
    metric = METRICS["accuracy_cells"]
    scores = score_out_of_fold(metric, targets, probabilities, parts, policy="global", resamples=0)
    high = replace(
        scores, cross_fitted=replace(scores.cross_fitted, pooled=scores.cross_fitted.pooled._replace(value=7.0))
    )
    rule = DecisionRule(None, scores.thresholds, probabilities, "global", "value", RowRules())
    assert "best value" in forecast(metric, targets, high, rule, folds=3, models=1, test=300).notes[0]


@pytest.mark.parametrize("name", ["f1_macro", "map"])
def test_the_interval_covers_the_score_of_the_mean_of_models(name: str) -> None:
    metric, inside, errors = METRICS[name], [], []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        (targets, models), parts = rows(rng, 600, 3), rng.integers(0, 3, 600)
        unseen, of_test = rows(rng, 300, 3)
        out_of_fold = models[parts, np.arange(600)]
        _, expected, rule = fitted(name, targets, out_of_fold, parts, models=3, transfer="rate")
        mean = of_test.mean(axis=0)
        true = metric.function(unseen, rule.decide(mean) if metric.takes == "decisions" else mean).value
        inside.append(expected.low <= true <= expected.high)
        errors.append((true - expected.value) / math.hypot(*expected.deviations.values()))
    assert np.mean(inside) >= 0.8
    assert 0.5 < np.std(errors) < 1.5


def test_a_test_with_other_label_rates_shifts_the_forecast_and_is_named() -> None:
    rng = np.random.default_rng(1)
    targets, probabilities, parts = table()
    same, other = (rows(rng, 2_000, rate=rate)[1][0] for rate in (0.5, 0.1))
    by_rows = fitted("map", targets, probabilities, parts, test=2_000)[1]
    alike, shifted = (fitted("map", targets, probabilities, parts, test=test)[1] for test in (same, other))
    assert alike == by_rows
    assert shifted.value < by_rows.value  # a rarer label has a lower average precision
    assert any("label rates" in note for note in shifted.notes)


def test_a_test_of_which_few_rows_are_alike_leaves_no_forecast() -> None:
    targets, probabilities, parts = table()
    _, expected, _ = fitted("map", targets, probabilities, parts, test=np.full((500, 4), 0.9))
    assert math.isnan(expected.value)
    assert "far more or less frequent" in expected.notes[0]


def test_raked_weights_give_each_label_its_rate() -> None:
    targets = table()[0]
    rates = np.array([0.4, 0.35, 0.1, 0.3])
    np.testing.assert_allclose(np.average(targets, axis=0, weights=raked(targets, rates)), rates, atol=1e-6)
    assert raked(targets, rates).mean() == pytest.approx(1.0)
