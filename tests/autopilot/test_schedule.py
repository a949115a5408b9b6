"""The planner with simulated costs: never over the budget, a first submission within a tenth, always a step."""

from __future__ import annotations

from io import StringIO

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.autopilot.autopilot import print_schedule
from pipeline.autopilot.schedule import FIRST, Costs, Task, halved, make_schedule
from tests.conftest import PROJECT

_SECONDS = st.floats(0.01, 500.0)
_COSTS = st.builds(Costs, st.integers(1, 60), _SECONDS, _SECONDS, _SECONDS, _SECONDS)
_ARMS = st.lists(_COSTS, min_size=1, max_size=6).map(lambda costs: {f"arm{n}": each for n, each in enumerate(costs)})
_TASKS = st.builds(Task, st.integers(2, 10), st.integers(1, 4), st.floats(0, 300))


@given(_ARMS, _TASKS, st.floats(60, 200_000), st.floats(0, 0.05))
def test_a_plan_keeps_the_budget_and_begins_with_a_submission_within_a_tenth(
    arms: dict[str, Costs], task: Task, budget: float, measured: float
) -> None:
    spent = measured * budget
    plan = make_schedule(arms, task, budget=budget, spent=spent)
    cheapest = min(each.images + each.fold(1) + each.predict for each in arms.values())
    assert plan.steps
    assert 1 <= plan.first_epochs <= arms[plan.first].epochs
    assert set(plan.epochs) <= set(arms)
    assert all(1 <= epochs <= arms[name].epochs for name, epochs in plan.epochs.items())
    assert plan.finals == min(2, len(plan.epochs))
    assume(cheapest < FIRST * budget - spent)
    assert plan.steps[0].seconds <= FIRST * budget - spent + 1e-6
    assert spent + sum(step.seconds for step in plan.steps) <= budget


@given(_ARMS, _TASKS, st.floats(60, 200_000))
def test_more_time_never_plans_fewer_final_arms(arms: dict[str, Costs], task: Task, budget: float) -> None:
    plans = [make_schedule(arms, task, budget=seconds, spent=0) for seconds in (budget, 10 * budget)]
    assert plans[0].finals <= plans[1].finals


@pytest.mark.parametrize(("budget", "short"), [(1_900, True), (6_000, False)])
def test_where_time_is_short_arms_are_halved_after_short_trainings(budget: float, short: bool) -> None:
    arms = {name: Costs(20, 5.0, 2.0, 10.0, 2.0) for name in "abcdef"}
    plan = make_schedule(arms, Task(2, 1, 5.0), budget=budget, spent=0)
    assert (plan.short, list(plan.epochs)) == (short, [*"abcdef"])
    assert any(step.name.startswith(f"the best {halved(6)} arms") for step in plan.steps) == short


def test_an_arm_that_takes_too_long_is_not_compared() -> None:
    arms = {"large": Costs(20, 0.0, 2.0, 400.0, 2.0), "a": Costs(20, 0, 2.0, 5.0, 2.0), "b": Costs(9, 0, 2.0, 5.0, 2.0)}
    plan = make_schedule(arms, Task(3, 1, 5.0), budget=3_600, spent=10)
    assert [*plan.epochs] == ["a", "b"]
    assert plan.epochs == {"a": 20, "b": 9}


def test_the_documentation_shows_the_plan_for_two_gpus_and_nine_hours() -> None:
    arms = {
        "own": Costs(12, 300.0, 30.0, 330.0, 60.0),
        "frozen": Costs(8, 1500.0, 30.0, 20.0, 60.0),
        "gap": Costs(12, 0.0, 30.0, 320.0, 60.0),
        "asl": Costs(12, 0.0, 30.0, 330.0, 60.0),
        "larger": Costs(12, 400.0, 30.0, 650.0, 115.0),
    }
    plan = make_schedule(arms, Task(5, 2, 300.0), budget=32_400, spent=300)
    console = Console(width=100, record=True, quiet=False, file=StringIO())
    print_schedule(console, plan, "9h")
    shown = [line.rstrip() for line in console.export_text().splitlines()]
    assert "\n".join(shown) in (PROJECT / "docs/autopilot.md").read_text(encoding="utf-8")
