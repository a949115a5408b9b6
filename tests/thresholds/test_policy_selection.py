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
from pipeline.thresholds.policy_selection import SHRUNK, CrossFitter
from pipeline.thresholds.threshold_problem import threshold_problem

FOLDS = frozenset(range(4))


def drawn(shift: float, rows: int = 2000) -> tuple[Bits, Floats, Ints]:
    """Three labels with calibrated scores, whose logits are then shifted by −shift, 0 and +shift; and four folds."""
    rng = np.random.default_rng(0)
    logits = 2.0 * rng.normal(size=(rows, 3))
    targets = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
    return targets, 1 / (1 + np.exp(-(logits + shift * np.array([-1, 0, 1])))), np.arange(rows) % 4


def fitter(shift: float, metric: str = "accuracy_cells") -> CrossFitter:
    targets, probabilities, folds = drawn(shift)
    return CrossFitter(threshold_problem(METRICS[metric], targets, probabilities), folds, platt=False)


def test_auto_chooses_the_simplest_policy_where_no_other_gains() -> None:
    assert fitter(0.0).thresholds("auto", FOLDS)[0] == "fixed"


def test_auto_chooses_thresholds_per_label_where_labels_differ() -> None:
    policy, thresholds = fitter(3.0).thresholds("auto", FOLDS)
    assert policy in {"prevalence", "per_label", *SHRUNK}
    assert thresholds[0] < 0.3 < 0.7 < thresholds[2]


@pytest.mark.parametrize("policy", ["auto", "shrunk"])
def test_the_choice_does_not_depend_on_a_fold_left_out(policy: str) -> None:
    targets, probabilities, folds = drawn(1.0)
    changed = np.where(folds[:, None] == 3, 1 - targets, targets).astype(np.uint8)
    found = []
    for table in (targets, changed):
        problem = threshold_problem(METRICS["f1_macro"], table, probabilities)
        found.append(CrossFitter(problem, folds, platt=True).thresholds(policy, FOLDS - {3}))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_a_single_fold_gets_the_default_strength() -> None:
    assert fitter(1.0).thresholds("auto", frozenset({2}))[0] == "shrunk 30"


def test_optuna_improves_on_the_thresholds_per_label() -> None:
    targets, probabilities, folds = drawn(1.0, rows=400)
    problem = threshold_problem(METRICS["f1_macro"], targets, probabilities)
    tuned = CrossFitter(problem, folds, platt=False)

    def mean_of_folds(thresholds: Floats) -> float:
        return float(np.mean([problem.subset(folds == fold).value(thresholds) for fold in range(4)]))

    policy, found = tuned.thresholds("optuna", FOLDS)
    start = tuned.thresholds("per_label", FOLDS)[1]
    assert policy == "optuna"
    assert mean_of_folds(found) > mean_of_folds(start)
    logits = [np.log(each / (1 - each)) for each in (start, found)]
    assert np.abs(logits[1] - logits[0]).max() <= 0.3 + 1e-9


def test_the_strength_has_the_best_cross_fitted_score() -> None:
    targets, probabilities, folds = drawn(1.0, rows=400)
    problem = threshold_problem(METRICS["f1_macro"], targets, probabilities)
    tuned = CrossFitter(problem, folds, platt=False)
    policy, _ = tuned.thresholds("shrunk", FOLDS)
    assert policy.startswith("shrunk ")

    def cross_fitted(policy: str) -> float:
        decisions = np.empty_like(targets)
        for fold in FOLDS:
            others = tuned.fit_on(FOLDS - {fold}).thresholds(policy)
            decisions[folds == fold] = problem.rules.apply(probabilities[folds == fold], others)
        return METRICS["f1_macro"].function(targets, decisions).value

    assert cross_fitted(policy) >= max(cross_fitted(each) for each in SHRUNK)


@pytest.mark.parametrize("policy", ["shrunk", "optuna", "auto"])
def test_policies_return_thresholds_even_where_no_score_is_defined(policy: str) -> None:
    targets, probabilities, folds = drawn(1.0, rows=60)
    targets[folds != 0] = 0  # without fold 0 no label has a positive, and macro-F1 no value
    problem = threshold_problem(METRICS["f1_macro"], targets, probabilities)
    _, thresholds = CrossFitter(problem, folds, platt=False).thresholds(policy, FOLDS - {0})
    assert np.isfinite(thresholds).all()


def test_optuna_does_not_gain_by_making_a_fold_undefined() -> None:
    targets, probabilities, folds = drawn(1.0, rows=200)

    def cost(targets: NDArray[Any], decisions: NDArray[Any]) -> MetricValue:
        error = float(np.abs(targets.astype(float) - decisions).mean())
        return MetricValue(float("nan") if decisions.mean() > 0.45 else error)

    metric = replace(METRICS["accuracy_cells"], name="cost", function=cost, criterion=None, greater_is_better=False)
    problem = threshold_problem(metric, targets, probabilities)
    tuned = CrossFitter(problem, folds, platt=False)
    start, found = (tuned.thresholds(policy, FOLDS)[1] for policy in ("per_label", "optuna"))
    for fold in range(4):
        of_fold = problem.subset(folds == fold)
        assert np.isfinite(of_fold.value(found)) or not np.isfinite(of_fold.value(start))


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown threshold policy 'optunna'; did you mean 'optuna'") as caught:
        fitter(1.0).thresholds("optunna", FOLDS)
    assert caught.value.remedy == "choose one of fixed, global, per_label, prevalence, shrunk, optuna, auto"
