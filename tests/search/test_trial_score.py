"""The score of a trial: the metric, mAP, or a metric with cross-fitted thresholds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from pipeline.competition.folds.rows import rows_of
from pipeline.run.plan import Plan
from pipeline.search.trial_score import build_trial_score

MakePlan = Callable[..., Plan]


@pytest.mark.parametrize(
    ("metric", "asked", "name", "greater"),
    [
        ("f1_macro", "auto", "map", True),
        ("f1_macro", "map", "map", True),
        ("f1_macro", "metric", "f1_macro, cross-fitted", True),
        ("log_loss", "auto", "log_loss", False),
        ("log_loss", "metric", "log_loss", False),
        ("log_loss", "map", "map", True),
    ],
)
def test_search_judge_names_the_score(make_plan: MakePlan, metric: str, asked: str, name: str, greater: bool) -> None:
    trial_score = build_trial_score(make_plan(f"competition.metric={metric}", f"search.judge={asked}"))
    assert (trial_score.name, trial_score.greater_is_better) == (name, greater)


def test_map_is_that_of_scikit_learn(make_plan: MakePlan) -> None:
    plan = make_plan()
    rows = rows_of(plan.folds, 1).validation
    logits = np.random.default_rng(0).normal(size=(len(rows), 3))
    expected = average_precision_score(plan.table.targets[rows], logits, average="macro")
    assert build_trial_score(plan)(1, logits) == pytest.approx(expected)


def test_thresholds_are_not_fitted_on_the_rows_they_are_scored_on(make_plan: MakePlan) -> None:
    """On noise, thresholds score far better on the rows they were fitted on."""
    plan = make_plan("search.judge=metric", "thresholds.policy=per_label", "competition.metric=accuracy_cells")
    trial_score = build_trial_score(plan)
    rows = rows_of(plan.folds, 0).validation
    generator = np.random.default_rng(0)
    noise = [trial_score(0, generator.normal(size=(len(rows), 3))) for _ in range(10)]
    assert np.mean(noise) < 0.62  # in-sample it would be 0.72
    assert trial_score(0, 10 * plan.table.targets[rows].astype(float) - 5) == pytest.approx(1.0)


def test_logits_that_are_not_finite_have_no_score(make_plan: MakePlan) -> None:
    plan = make_plan()
    rows = rows_of(plan.folds, 0).validation
    assert np.isnan(build_trial_score(plan)(0, np.full((len(rows), 3), np.nan)))
