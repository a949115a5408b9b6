"""The tickets: none lost, none doubled, whatever becomes of the workers."""

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
from pipeline.search.study import SearchError, TicketStudy, check_begun_alike, failure_of, suggest
from tests.search.workers import OWN, PARAMETERS, open_study, work_side_by_side

MakeStudy = Callable[..., TicketStudy]


def states(study: TicketStudy) -> Counter[str]:
    return Counter(trial.state.name for trial in study.study.get_trials(deepcopy=False))


def finish_all(study: TicketStudy) -> None:
    while (trial := study.draw()) is not None:
        study.complete(trial, suggest(trial, PARAMETERS)["x"])


def test_the_configs_own_values_come_first_and_once(make_study: MakeStudy) -> None:
    for _ in range(3):  # as many commands begin it
        make_study().begin({}, own=OWN)
    study = make_study()
    finish_all(study)
    drawn = [trial.params for trial in study.study.get_trials(deepcopy=False)]
    assert len(drawn) == 4
    assert [number for number, values in enumerate(drawn) if values == OWN] == [0]
    assert len({values["x"] for values in drawn}) == 4
    assert all(isinstance(values["n"], int) and values["n"] % 8 == 0 for values in drawn)


def test_a_study_grows_to_more_trials_and_never_beyond_them(make_study: MakeStudy) -> None:
    study = make_study()
    study.begin({}, own=None)
    finish_all(study)
    assert make_study().draw() is None
    more = make_study(trials=6)
    more.begin({}, own=OWN)
    finish_all(more)
    assert states(more) == {"COMPLETE": 6}
    assert make_study(trials=3).draw() is None


def test_workers_draw_different_values_after_a_restart(make_study: MakeStudy) -> None:
    drawn = []
    make_study(sampler="random").begin({}, own=None)
    for _ in range(4):
        study = make_study(sampler="random")
        trial = study.draw()
        assert trial is not None
        drawn.append(suggest(trial, PARAMETERS)["x"])
        study.complete(trial, 0.5)
    assert len(set(drawn)) == 4


def test_a_score_that_is_no_number_fails_and_a_new_ticket_takes_its_place(make_study: MakeStudy) -> None:
    study = make_study()
    study.begin({}, own=OWN)
    trial = study.draw()
    assert trial is not None
    suggest(trial, PARAMETERS)
    assert not study.complete(trial, math.nan)
    finish_all(study)
    assert states(study) == {"FAIL": 1, "COMPLETE": 4}
    assert failure_of(study.study.get_trials()[0]) == "its score is nan"


def test_ten_failures_in_a_row_end_the_search(make_study: MakeStudy) -> None:
    study = make_study()
    study.begin({}, own=OWN)
    for _ in range(10):
        trial = study.draw()
        assert trial is not None
        study.fail(trial, "the loss became nan")
    with pytest.raises(SearchError, match="the last 10 trials failed") as caught:
        study.draw()
    assert "the loss became nan" in str(caught.value)


def test_an_interrupted_trial_comes_again_with_its_values(make_study: MakeStudy) -> None:
    study = make_study()
    study.begin({}, own=OWN)
    finished = study.draw()
    assert finished is not None
    study.complete(finished, 0.1)
    trial = study.draw()
    assert trial is not None
    values = suggest(trial, PARAMETERS)
    study.give_back(trial)
    finish_all(study)
    assert states(study) == {"FAIL": 1, "COMPLETE": 4}
    assert [each.params for each in study.study.get_trials() if each.state.name == "COMPLETE"].count(values) == 1


def test_the_dead_are_buried_and_retried_once_with_their_values(make_study: MakeStudy) -> None:
    study = make_study()
    study.begin({}, own=OWN)
    first = study.draw()
    assert first is not None
    assert suggest(first, PARAMETERS) == OWN
    time.sleep(2.5)  # no beat: its process seems dead
    again: list[dict[str, object]] = []
    while (trial := make_study().draw()) is not None:
        values = suggest(trial, PARAMETERS)
        if trial.user_attrs["kind"] == "retry":
            again.append(values)
            if len(again) == 1:
                time.sleep(2.5)  # dies, too
                continue
        study.complete(trial, 0.5)
    assert again == [OWN]  # once: then another ticket takes its place
    assert states(study) == {"FAIL": 2, "COMPLETE": 4}
    assert failure_of(study.study.get_trials()[0]) == "its process died"


def test_a_living_trial_is_left_alone(make_study: MakeStudy) -> None:
    study = make_study()
    study.begin({}, own=OWN)
    first = study.draw()
    assert first is not None
    with study.alive(first):
        time.sleep(2.5)
        second = make_study().draw()
    assert second is not None
    assert states(study) == {"RUNNING": 2, "WAITING": 2}


def test_a_death_before_the_first_beat_is_seen(make_study: MakeStudy) -> None:
    study = make_study()
    study.begin({}, own=OWN)
    with pytest.warns(UserWarning, match="Heartbeat"):
        study.study.ask()  # and killed here
    finish_all(make_study())
    assert states(study) == {"FAIL": 1, "COMPLETE": 4}


def test_the_result_of_a_trial_given_to_another_is_dropped(make_study: MakeStudy) -> None:
    study = make_study()
    study.begin({}, own=OWN)
    slept = study.draw()
    assert slept is not None
    suggest(slept, PARAMETERS)
    time.sleep(2.5)
    finish_all(make_study())
    assert not study.complete(slept, 99.0)
    assert states(study) == {"FAIL": 1, "COMPLETE": 4}
    assert study.progress().best != 99.0


def test_nothing_is_drawn_or_written_while_another_worker_does(
    make_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study()
    study.begin({}, own=OWN)
    trial = study.draw()
    assert trial is not None
    monkeypatch.setattr("pipeline.search.storage._LOCK_SECONDS", 0.1)
    with FileLock(tmp_path / "lock"):
        for act in (study.draw, lambda: study.complete(trial, 0.5), lambda: study.fail(trial, "x")):
            with pytest.raises(RunError, match="held by another process"):
                act()
    assert states(study) == {"RUNNING": 1, "WAITING": 3}
    assert study.complete(trial, 0.5)


def test_one_command_goes_on(make_study: MakeStudy) -> None:
    assert make_study().claim("a:/runs/x")
    assert not make_study().claim("b:/runs/x")
    assert make_study().claim("a:/runs/x")  # after a kill


def test_starting_over_forgets_all_trials(make_study: MakeStudy) -> None:
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
    for attempt in range(20):  # until the worker that is to die draws the trial it is to die in
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
