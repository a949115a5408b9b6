"""The trials of a worker: which values they get, and what becomes of those without a score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import optuna
import pytest

from pipeline.config import Config
from pipeline.errors import ConfigError, ImageError, PipelineError, RunError
from pipeline.events import Event, TrialFinished
from pipeline.run.plan import Plan
from pipeline.search.space import parameters_of
from pipeline.search.study import SearchError, begin_study, failure_of, kind_of
from pipeline.search.worker import SearchTask, run_trials
from tests.search import studies

OpenStudy = Callable[..., AbstractContextManager[optuna.Study]]
MakePlan = Callable[..., Plan]
OWN = {"loss.gamma_neg": 2.0, "model.hidden_dim": 16}
SPACE = "search.space={loss.gamma_neg: {low: 0, high: 6}, hidden_dim: {low: 8, high: 24, step: 8}}"


@dataclass
class Trials:
    """Trials that take no time; `outcome` gives the score or raises, by trial number."""

    outcome: Callable[[int], float] = lambda _: 0.5
    configs: list[Config] = field(default_factory=list)

    def train(self, number: int, config: Config, *, listen: Any, on_score: Callable[[int, int, float], None]) -> float:
        self.configs.append(config)
        score = self.outcome(number)
        on_score(0, 1, score)
        return score


@pytest.fixture
def run(open_study: OpenStudy, make_plan: MakePlan) -> Callable[..., Sequence[optuna.trial.FrozenTrial]]:
    """Runs the trials of one command, and returns those of the study."""

    def call(trials: Trials, *settings: str, listen: Callable[[Event], None] = lambda _: None) -> Sequence[Any]:
        plan = make_plan(SPACE, "search.trials=4", "train.epochs=2", *settings)
        search = SearchTask(plan, parameters_of(plan.config, plan.table.labels, [1, 2, 3]), workers=1)
        with open_study(**plan.config.search.model_dump(exclude={"space"})) as study:
            begin_study(study, {}, own=OWN, where="here")
            try:
                run_trials(search, study, trials, listen)  # type: ignore[arg-type]
            finally:
                call.trials = study.get_trials()  # type: ignore[attr-defined]
            return study.get_trials()

    return call


def fail(error: BaseException) -> float:
    raise error


def states(trials: Sequence[optuna.trial.FrozenTrial]) -> list[str]:
    return [trial.state.name for trial in trials]


def test_the_configs_own_values_come_first_and_later_commands_add_other_trials(run: Any) -> None:
    made, events = Trials(), list[Event]()
    first, *_ = run(made, listen=events.append)
    assert first.params == OWN
    assert made.configs[0].model.hidden_dim == 16
    assert events[-1] == TrialFinished(3, "0.5000", 4, 4, 0.5, run.trials[3].params)
    assert len(run(made)) == 4
    assert len(run(made, "search.trials=3")) == 4
    grown = run(made, "search.trials=6")
    assert states(grown) == ["COMPLETE"] * 6
    assert [kind_of(trial) for trial in grown] == ["own values"] + ["sampled"] * 5
    assert len({trial.params["loss.gamma_neg"] for trial in grown}) == 6


@pytest.mark.parametrize("error", [None, ConfigError("the loss became nan", remedy="lower it")])
def test_a_trial_without_a_finite_score_fails_and_is_replaced(run: Any, error: PipelineError | None) -> None:
    found = run(Trials(lambda number: 0.5 if number else math.nan if error is None else fail(error)))
    assert states(found) == ["FAIL"] + ["COMPLETE"] * 4
    assert failure_of(found[0]) == ("its score is nan" if error is None else "the loss became nan")


def test_a_search_that_always_fails_ends_with_the_reason(run: Any) -> None:
    with pytest.raises(SearchError, match="the last 10 trials failed") as caught:
        run(Trials(lambda _: fail(ConfigError("the loss became nan", remedy="lower it"))))
    assert "the loss became nan" in str(caught.value)
    assert len(run.trials) == 10


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ImageError("an image is gone", remedy="restore it")])
def test_an_interrupted_trial_comes_again_with_its_values(run: Any, error: BaseException) -> None:
    with pytest.raises(type(error)):
        run(Trials(lambda number: 0.5 if number == 0 else fail(error)))
    found = run(Trials())
    assert states(found) == ["COMPLETE", "FAIL"] + ["COMPLETE"] * 3
    assert failure_of(found[1]) == "interrupted"
    assert found[2].params == found[1].params


def test_a_bad_trial_is_pruned_in_its_first_epoch(run: Any) -> None:
    found = run(Trials(lambda number: 1.0 - number / 10), "search.trials=7")
    assert states(found) == ["COMPLETE"] * 5 + ["PRUNED"] * 2


@pytest.mark.parametrize(
    ("sampler", "pruner"), [("tpe", "median"), ("random", "hyperband"), ("tpe", "wilcoxon"), ("random", "none")]
)
def test_every_sampler_and_pruner_runs(run: Any, sampler: str, pruner: str) -> None:
    assert len(run(Trials(), f"search.sampler={sampler}", f"search.pruner={pruner}")) == 4


def test_a_trial_that_another_worker_has_taken_over_ends_with_one_message(run: Any, open_study: OpenStudy) -> None:
    def taken_over(number: int) -> float:
        with open_study() as other:
            other.tell(number, state=optuna.trial.TrialState.FAIL)
        return 0.5

    with pytest.raises(SearchError, match="gave no sign of life"):
        run(Trials(taken_over))


def test_other_settings_are_refused_by_name(open_study: OpenStudy) -> None:
    with open_study() as study:
        begin_study(study, {"train.lr": 0.1, "kept": 1}, own=None, where="runs/x")
        with pytest.raises(RunError, match=r"train\.lr: 0\.1 in the search, 0\.2 now") as caught:
            begin_study(study, {"train.lr": 0.2, "kept": 1}, own=None, where="runs/x")
    assert "kept" not in str(caught.value)


def test_a_trial_whose_process_died_is_repeated_once_with_its_values(database: str) -> None:
    studies.check_that_dead_trials_are_retried_once(database)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")  # two threads cannot both switch a warning off
def test_two_workers_never_take_the_same_waiting_trial(database: str) -> None:
    studies.check_that_each_waiting_trial_is_taken_once(database)
