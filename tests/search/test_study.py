"""The tickets of a study: no trial is lost or trained twice, also when workers die."""

from __future__ import annotations

import math
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from pipeline.config import SearchConfig
from pipeline.errors import RunError
from pipeline.search.study import SearchError, TicketStudy, Trial, check_begun_alike, failure_of, suggest
from tests.search.workers import OWN, PARAMETERS, open_study, work_side_by_side

MakeStudy = Callable[..., TicketStudy]


@pytest.fixture
def study(make_study: MakeStudy) -> TicketStudy:
    """A study of four trials, the first with the config's own values."""
    begun = make_study()
    begun.begin({}, own=OWN)
    return begun


def states(study: TicketStudy) -> Counter[str]:
    return Counter(trial.state.name for trial in study.study.get_trials(deepcopy=False))


def draw(study: TicketStudy) -> Trial:
    trial = study.draw()
    assert trial is not None
    return trial


def finish_all(study: TicketStudy) -> None:
    while (trial := study.draw()) is not None:
        study.complete(trial, suggest(trial, PARAMETERS)["x"])


def test_the_configs_own_values_come_first_and_once(make_study: MakeStudy) -> None:
    for _ in range(3):  # three commands begin it
        make_study().begin({}, own=OWN)
    study = make_study()
    finish_all(study)
    drawn = [trial.params for trial in study.study.get_trials(deepcopy=False)]
    assert len(drawn) == 4
    assert [number for number, values in enumerate(drawn) if values == OWN] == [0]
    assert len({values["x"] for values in drawn}) == 4
    assert all(isinstance(values["n"], int) and values["n"] % 8 == 0 for values in drawn)


def test_a_study_grows_to_the_new_number_of_trials_and_not_beyond(make_study: MakeStudy) -> None:
    study = make_study()
    study.begin({}, own=None)
    finish_all(study)
    assert make_study().draw() is None
    more = make_study(trials=6)
    more.begin({}, own=OWN)
    finish_all(more)
    assert states(more) == {"COMPLETE": 6}
    assert make_study(trials=3).draw() is None


def test_a_restarted_worker_draws_other_values(make_study: MakeStudy) -> None:
    drawn = []
    make_study(sampler="random").begin({}, own=None)
    for _ in range(4):
        study = make_study(sampler="random")
        trial = draw(study)
        drawn.append(suggest(trial, PARAMETERS)["x"])
        study.complete(trial, 0.5)
    assert len(set(drawn)) == 4


def test_a_trial_without_a_finite_score_fails_and_is_replaced(study: TicketStudy) -> None:
    trial = draw(study)
    suggest(trial, PARAMETERS)
    assert not study.complete(trial, math.nan)
    finish_all(study)
    assert states(study) == {"FAIL": 1, "COMPLETE": 4}
    assert failure_of(study.study.get_trials()[0]) == "its score is nan"


def test_ten_failures_in_a_row_end_the_search(study: TicketStudy) -> None:
    for _ in range(10):
        study.fail(draw(study), "the loss became nan")
    with pytest.raises(SearchError, match="the last 10 trials failed") as caught:
        study.draw()
    assert "the loss became nan" in str(caught.value)


def test_an_interrupted_trial_comes_again_with_its_values(study: TicketStudy) -> None:
    study.complete(draw(study), 0.1)
    trial = draw(study)
    values = suggest(trial, PARAMETERS)
    study.give_back(trial)
    finish_all(study)
    assert states(study) == {"FAIL": 1, "COMPLETE": 4}
    assert [each.params for each in study.study.get_trials() if each.state.name == "COMPLETE"].count(values) == 1


def test_a_trial_whose_process_died_is_repeated_once_with_its_values(study: TicketStudy, make_study: MakeStudy) -> None:
    first = draw(study)
    assert suggest(first, PARAMETERS) == OWN
    time.sleep(2.5)  # without a heartbeat it counts as dead
    again: list[dict[str, object]] = []
    while (trial := make_study().draw()) is not None:
        values = suggest(trial, PARAMETERS)
        if trial.user_attrs["kind"] == "retry":
            again.append(values)
            if len(again) == 1:
                time.sleep(2.5)  # dies again
                continue
        study.complete(trial, 0.5)
    assert again == [OWN]  # once, then a new ticket
    assert states(study) == {"FAIL": 2, "COMPLETE": 4}
    assert failure_of(study.study.get_trials()[0]) == "its process died"


def test_a_living_trial_is_left_alone(study: TicketStudy, make_study: MakeStudy) -> None:
    first = draw(study)
    with study.alive(first):
        time.sleep(2.5)
        draw(make_study())
    assert states(study) == {"RUNNING": 2, "WAITING": 2}


def test_a_death_before_the_first_heartbeat_is_noticed(study: TicketStudy, make_study: MakeStudy) -> None:
    with pytest.warns(UserWarning, match="Heartbeat"):
        study.study.ask()  # and killed here
    finish_all(make_study())
    assert states(study) == {"FAIL": 1, "COMPLETE": 4}


def test_the_result_of_a_trial_that_another_worker_took_over_is_dropped(
    study: TicketStudy, make_study: MakeStudy
) -> None:
    slow = draw(study)
    suggest(slow, PARAMETERS)
    time.sleep(2.5)
    finish_all(make_study())
    assert not study.complete(slow, 99.0)
    assert states(study) == {"FAIL": 1, "COMPLETE": 4}
    assert study.progress().best != 99.0


def test_nothing_is_drawn_or_recorded_while_another_worker_holds_the_lock(
    study: TicketStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = draw(study)
    monkeypatch.setattr("pipeline.search.storage._LOCK_SECONDS", 0.1)
    with FileLock(tmp_path / "lock"):
        for act in (study.draw, lambda: study.complete(trial, 0.5), lambda: study.fail(trial, "x")):
            with pytest.raises(RunError, match="held by another process"):
                act()
    assert states(study) == {"RUNNING": 1, "WAITING": 3}
    assert study.complete(trial, 0.5)


def test_one_command_may_continue_with_the_result(make_study: MakeStudy) -> None:
    assert make_study().claim("a:/runs/x")
    assert not make_study().claim("b:/runs/x")
    assert make_study().claim("a:/runs/x")  # after a kill


def test_starting_over_deletes_all_trials(make_study: MakeStudy) -> None:
    study = make_study()
    study.begin({"lr": 1}, own=OWN)
    finish_all(study)
    study.start_over()
    assert study.begin({"lr": 2}, own=OWN) == {"lr": 2}
    assert states(study) == {"WAITING": 4}


def test_other_settings_are_refused_by_name(make_study: MakeStudy) -> None:
    make_study().begin({"train.lr": 0.1, "kept": 1}, own=None)
    begun = make_study().begin({"train.lr": 0.2, "kept": 1}, own=None)
    with pytest.raises(RunError, match=r"train\.lr: 0\.1 in the search, 0\.2 now") as caught:
        check_begun_alike(begun, {"train.lr": 0.2, "kept": 1}, where="runs/x")
    assert "kept" not in str(caught.value)


@pytest.mark.parametrize(
    ("sampler", "pruner"), [("tpe", "median"), ("random", "hyperband"), ("tpe", "wilcoxon"), ("random", "none")]
)
def test_every_sampler_and_pruner_runs(make_study: MakeStudy, sampler: str, pruner: str) -> None:
    study = make_study(sampler=sampler, pruner=pruner)
    study.begin({}, own=OWN)
    while (trial := study.draw()) is not None:
        trial.report(suggest(trial, PARAMETERS)["x"], step=1)
        if trial.should_prune():
            study.prune(trial)
        else:
            study.complete(trial, trial.params["x"])
    progress = study.progress()
    assert (progress.done, progress.running, progress.waiting) == (4, 0, 0)


@pytest.mark.usefixtures("quick_processes")
def test_two_processes_share_a_study(tmp_path: Path) -> None:
    codes = work_side_by_side(None, tmp_path, trials=8)
    assert codes == [0, 0]
    study = open_study(None, tmp_path, SearchConfig(trials=8))
    trials = study.study.get_trials()
    assert states(study) == {"COMPLETE": 8}
    assert [trial.params for trial in trials].count(OWN) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("quick_processes")
def test_a_killed_process_costs_one_retry(tmp_path: Path) -> None:
    for attempt in range(20):  # until the worker with die_at draws that trial
        folder = tmp_path / str(attempt)
        folder.mkdir()
        codes = work_side_by_side(None, folder, trials=8, die_at=3)
        if codes[1] == -signal.SIGKILL:
            break
    assert codes == [0, -signal.SIGKILL]
    study = open_study(None, folder, SearchConfig(trials=8))
    trials = study.study.get_trials()
    assert states(study) == {"FAIL": 1, "COMPLETE": 8}
    assert [trial.params for trial in trials if trial.user_attrs["kind"] == "retry"] == [trials[3].params]
