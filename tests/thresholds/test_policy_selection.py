from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.metrics.means import MetricValue
from pipeline.metrics.registry import METRICS
from pipeline.metrics.targets import Bits, Floats, Ints
from pipeline.thresholds.policy_selection import PER_STRENGTH, Fits
from pipeline.thresholds.threshold_problem import threshold_problem

PARTS = frozenset(range(4))


def drawn(shift: float, rows: int = 2000) -> tuple[Bits, Floats, Ints]:
    """Three labels whose scores are calibrated but for a shift of their logits, another for each label."""
    rng = np.random.default_rng(0)
    logits = 2.0 * rng.normal(size=(rows, 3))
    targets = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
    return targets, 1 / (1 + np.exp(-(logits + shift * np.array([-1, 0, 1])))), np.arange(rows) % 4


def fits(shift: float, metric: str = "accuracy_cells") -> Fits:
    targets, probabilities, parts = drawn(shift)
    return Fits(threshold_problem(METRICS[metric], targets, probabilities), parts, platt=False)


def test_auto_stays_with_the_simplest_where_nothing_is_to_be_gained() -> None:
    assert fits(0.0).thresholds("auto", PARTS)[0] == "fixed"


def test_auto_takes_thresholds_by_label_where_labels_differ() -> None:
    name, thresholds = fits(3.0).thresholds("auto", PARTS)
    assert name in {"prevalence", "per_label", *PER_STRENGTH}
    assert thresholds[0] < 0.3 < 0.7 < thresholds[2]


@pytest.mark.parametrize("policy", ["auto", "shrunk"])
def test_the_choice_does_not_look_at_a_part_left_out(policy: str) -> None:
    targets, probabilities, parts = drawn(1.0)
    changed = np.where(parts[:, None] == 3, 1 - targets, targets).astype(np.uint8)
    others = PARTS - {3}
    found = [
        Fits(threshold_problem(METRICS["f1_macro"], table, probabilities), parts, platt=True).thresholds(policy, others)
        for table in (targets, changed)
    ]
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_one_part_alone_is_shrunk() -> None:
    assert fits(1.0).thresholds("auto", frozenset({2}))[0] == "shrunk 30"


def test_optuna_goes_on_from_the_thresholds_by_label() -> None:
    targets, probabilities, parts = drawn(1.0, rows=400)
    problem = threshold_problem(METRICS["f1_macro"], targets, probabilities)
    tuned = Fits(problem, parts, platt=False)

    def of_parts(thresholds: Floats) -> float:
        return float(np.mean([problem.of_rows(parts == part).value(thresholds) for part in range(4)]))

    name, found = tuned.thresholds("optuna", PARTS)
    start = tuned.thresholds("per_label", PARTS)[1]
    assert name == "optuna"
    assert of_parts(found) > of_parts(start)
    logits = [np.log(each / (1 - each)) for each in (start, found)]
    assert np.abs(logits[1] - logits[0]).max() <= 0.3 + 1e-9


def test_the_strength_is_tuned_by_its_cross_fitted_score() -> None:
    targets, probabilities, parts = drawn(1.0, rows=400)
    problem = threshold_problem(METRICS["f1_macro"], targets, probabilities)
    tuned = Fits(problem, parts, platt=False)
    name, _ = tuned.thresholds("shrunk", PARTS)
    assert name.startswith("shrunk ")

    def cross_fitted(name: str) -> float:
        decisions = np.empty_like(targets)
        for part in PARTS:
            others = tuned.on(PARTS - {part}).thresholds(name)
            decisions[parts == part] = problem.rules.apply(probabilities[parts == part], others)
        return METRICS["f1_macro"].function(targets, decisions).value

    assert cross_fitted(name) >= max(cross_fitted(one) for one in PER_STRENGTH)


@pytest.mark.parametrize("policy", ["shrunk", "optuna", "auto"])
def test_a_score_that_is_nowhere_defined_chooses_something(policy: str) -> None:
    targets, probabilities, parts = drawn(1.0, rows=60)
    targets[parts != 0] = 0  # without part 0 no label has a positive, and macro-F1 no value
    problem = threshold_problem(METRICS["f1_macro"], targets, probabilities)
    _, thresholds = Fits(problem, parts, platt=False).thresholds(policy, PARTS - {0})
    assert np.isfinite(thresholds).all()


def test_optuna_gains_nothing_by_a_part_without_a_value() -> None:
    targets, probabilities, parts = drawn(1.0, rows=200)

    def cost(targets: NDArray[Any], decisions: NDArray[Any]) -> MetricValue:
        decided = decisions.mean()
        error = float(np.abs(targets.astype(float) - decisions).mean())
        return MetricValue(float("nan") if decided > 0.45 else error)

    metric = replace(METRICS["accuracy_cells"], name="cost", function=cost, criterion=None, greater_is_better=False)
    problem = threshold_problem(metric, targets, probabilities)
    tuned = Fits(problem, parts, platt=False)
    start, found = (tuned.thresholds(policy, PARTS)[1] for policy in ("per_label", "optuna"))
    for part in range(4):
        of_part = problem.of_rows(parts == part)
        assert np.isfinite(of_part.value(found)) or not np.isfinite(of_part.value(start))


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown threshold policy 'optunna'; did you mean 'optuna'"):
        fits(1.0).thresholds("optunna", PARTS)
