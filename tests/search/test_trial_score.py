"""What a trial is worth: the metric itself, mAP, or a score whose thresholds have not seen the rows they decide."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from pipeline.competition.folds.rows import rows_of
from pipeline.run.plan import Plan
from pipeline.search.trial_score import build_judge

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
def test_which_score_judges(make_plan: MakePlan, metric: str, asked: str, name: str, greater: bool) -> None:
    judge = build_judge(make_plan(f"competition.metric={metric}", f"search.judge={asked}"))
    assert (judge.name, judge.greater_is_better) == (name, greater)


def test_map_is_that_of_scikit_learn(make_plan: MakePlan) -> None:
    plan = make_plan()
    rows = rows_of(plan.folds, 1).validation
    logits = np.random.default_rng(0).normal(size=(len(rows), 3))
    expected = average_precision_score(plan.table.targets[rows], logits, average="macro")
    assert build_judge(plan)(1, logits) == pytest.approx(expected)


def test_a_threshold_does_not_see_the_rows_it_decides(make_plan: MakePlan) -> None:
    """Of noise, thresholds fitted on the same rows score far better than those fitted on the others."""
    plan = make_plan("search.judge=metric", "thresholds.policy=per_label", "competition.metric=accuracy_cells")
    judge = build_judge(plan)
    rows = rows_of(plan.folds, 0).validation
    generator = np.random.default_rng(0)
    noise = [judge(0, generator.normal(size=(len(rows), 3))) for _ in range(10)]
    assert np.mean(noise) < 0.62  # in-sample it would be 0.72
    assert judge(0, 10 * plan.table.targets[rows].astype(float) - 5) == pytest.approx(1.0)


def test_logits_that_are_no_numbers_have_no_score(make_plan: MakePlan) -> None:
    plan = make_plan()
    rows = rows_of(plan.folds, 0).validation
    assert np.isnan(build_judge(plan)(0, np.full((len(rows), 3), np.nan)))
