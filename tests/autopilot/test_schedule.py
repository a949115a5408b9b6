"""The planner with simulated costs: never over the budget, a first submission within a tenth, always a step."""

from __future__ import annotations

from io import StringIO

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.autopilot.autopilot import print_schedule
from pipeline.autopilot.schedule import FIRST, MEASURING, Costs, Task, halved, make_schedule, short_of
from tests.conftest import PROJECT

_SECONDS = st.floats(0.01, 500.0)
_COSTS = st.builds(Costs, st.integers(1, 60), _SECONDS, _SECONDS, _SECONDS, _SECONDS)
_ARMS = st.lists(_COSTS, min_size=1, max_size=6).map(lambda costs: {f"arm{n}": each for n, each in enumerate(costs)})
_TASKS = st.builds(Task, st.integers(2, 10), st.integers(1, 4), st.integers(1, 60), st.floats(0, 300))


@given(_ARMS, _TASKS, st.floats(60, 200_000))
def test_a_plan_keeps_the_budget_and_begins_with_a_submission_within_a_tenth(
    arms: dict[str, Costs], task: Task, budget: float
) -> None:
    plan = make_schedule(arms, task, budget=budget)
    name, epochs = plan.first
    assert 1 <= epochs <= arms[name].epochs
    assert all(1 <= count <= arms[arm].epochs for arm, count in plan.arms.items())
    assert all(seconds >= 0 for _, seconds in plan.steps)
    assume(min(each.alone(1) for each in arms.values()) < 0.04 * budget)
    assert MEASURING * budget + plan.steps[0][1] <= FIRST * budget
    assume(budget > 200 + 2 * task.end)
    assert MEASURING * budget + sum(seconds for _, seconds in plan.steps) <= budget


@given(_ARMS, _TASKS, st.floats(60, 200_000))
def test_the_two_best_of_several_arms_always_get_all_their_folds(
    arms: dict[str, Costs], task: Task, budget: float
) -> None:
    plan = make_schedule(arms, task, budget=budget)
    assume(len(plan.arms) > 1)
    used = sum(min(short_of(arms[arm].epochs), arms[arm].epochs) * arms[arm].epoch for arm in [*plan.arms][2:])
    rest = sum(sorted(task.rest(arms[arm], 1) for arm in plan.arms)[-2:])
    assert used + rest + task.end <= budget
    assert [*plan.arms] == [arm for arm in arms if arm in plan.arms]  # the most important first
    assert all(task.rest(arms[arm], 0) <= 0.6 * budget for arm in plan.arms)


@given(_ARMS, _TASKS, st.floats(60, 20_000))
def test_more_time_never_compares_fewer_arms(arms: dict[str, Costs], task: Task, budget: float) -> None:
    fewer, more = (make_schedule(arms, task, budget=seconds) for seconds in (budget, 10 * budget))
    assert len(fewer.arms) <= len(more.arms)


def test_a_short_time_goes_to_the_first_arm_in_full() -> None:
    """UC Merced on two cores for 40 minutes: one fold takes 13 minutes, so nothing is spent on a comparison."""
    own, frozen = Costs(20, 5.0, 6.0, 38.0, 6.0), Costs(8, 60.0, 6.0, 2.0, 6.0)
    arms = {"own": own, "frozen": frozen, "larger": Costs(20, 5.0, 6.0, 76.0, 12.0), "gap": own}
    plan = make_schedule(arms, Task(5, 1, 20, 13.0), budget=2_400)
    assert plan.first == ("frozen", 8)
    assert plan.arms == {"own": 17}
    name, seconds = plan.steps[1]
    assert name == "own, folds: 3, epochs: 17"
    assert seconds == pytest.approx(5 + 3 * (6 + 17 * 38 + 6))
    long = make_schedule(arms, Task(5, 1, 20, 13.0), budget=3_000)
    assert long.steps[1][0] == "own, folds: 4, epochs: 16"
    brief = make_schedule(arms, Task(5, 1, 20, 13.0), budget=900)
    assert brief.steps[1][0] == "own, folds: 1, epochs: 15"


def test_from_scratch_the_first_arm_gets_more_epochs_than_usual_before_others_are_compared() -> None:
    """Digit scenes on one core: all folds side by side, 50 epochs in the config, at most 250."""
    own = Costs(250, 1.0, 5.0, 7.5, 1.0)
    arms = {"own": own, "larger": Costs(250, 1.0, 5.0, 14.0, 2.0), "gap": Costs(250, 1.0, 5.0, 6.0, 1.0)}
    for budget, epochs in ((400, 34), (1_200, 108), (2_400, 218)):
        plan = make_schedule(arms, Task(3, 3, 50, 11.0), budget=budget)
        assert plan.arms == {"own": epochs}
    assert len(make_schedule(arms, Task(3, 3, 50, 11.0), budget=8_000).arms) == 2


@pytest.mark.parametrize(("budget", "arms"), [(800, 1), (1_000, 2), (1_500, 4), (6_000, 6)])
def test_arms_are_halved_after_short_trainings(budget: float, arms: int) -> None:
    costs = {name: Costs(20, 5.0, 2.0, 10.0, 2.0) for name in "abcdef"}
    plan = make_schedule(costs, Task(2, 1, 20, 5.0), budget=budget)
    assert len(plan.arms) == arms
    assert any(step.startswith(f"the best {halved(arms)} arms") for step, _ in plan.steps) == (arms > 2)


def test_an_arm_that_takes_too_long_is_not_compared() -> None:
    arms = {"large": Costs(20, 0.0, 2.0, 400.0, 2.0), "a": Costs(20, 0, 2.0, 5.0, 2.0), "b": Costs(9, 0, 2.0, 5.0, 2.0)}
    plan = make_schedule(arms, Task(3, 1, 20, 5.0), budget=3_600)
    assert plan.arms == {"a": 20, "b": 9}


def test_the_documentation_shows_the_plan_for_two_gpus_and_nine_hours() -> None:
    arms = {
        "own": Costs(12, 300.0, 30.0, 330.0, 60.0),
        "frozen": Costs(8, 1500.0, 30.0, 20.0, 60.0),
        "larger": Costs(12, 400.0, 30.0, 650.0, 115.0),
        "gap": Costs(12, 0.0, 30.0, 320.0, 60.0),
        "asl": Costs(12, 0.0, 30.0, 330.0, 60.0),
    }
    plan = make_schedule(arms, Task(5, 2, 12, 310.0), budget=32_400)
    console = Console(width=100, record=True, quiet=False, file=StringIO())
    print_schedule(console, plan, "9h")
    shown = [line.rstrip() for line in console.export_text().splitlines()]
    assert "\n".join(shown) in (PROJECT / "docs/autopilot.md").read_text(encoding="utf-8")
