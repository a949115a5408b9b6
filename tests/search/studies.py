"""What must hold for a study in any database."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna

from pipeline.config import SearchConfig
from pipeline.search import study as studies
from pipeline.search.storage import opened_storage


@contextlib.contextmanager
def opened_study(url: str, search: SearchConfig | None = None) -> Iterator[optuna.Study]:
    """The study `test`, which notices dead trials after a second or two."""
    with opened_storage(url, Path("unused.db"), heartbeat=1, grace=1) as storage:
        yield studies.open_study(storage, "test", search or SearchConfig(), maximize=True, epochs=3)


def ask(study: optuna.Study) -> optuna.Trial:
    """The next trial, with a look for dead ones before it, as `study.optimize` begins a trial."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optuna.storages.fail_stale_trials(study)
        return study.ask()


def die_in_a_trial(study: optuna.Study) -> float:
    """Begin a trial and let it die; returns its value."""
    trial = ask(study)
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    value = trial.suggest_float("x", 0, 6)
    time.sleep(2.5)
    return value


def check_that_dead_trials_are_retried_once(url: str) -> None:
    with opened_study(url) as study:
        first = die_in_a_trial(study)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 6), n_trials=1)
        assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
        assert study.trials[1].params == {"x": first}
        assert [studies.kind_of(trial) for trial in study.trials] == ["sampled", "retry"]
        assert studies.failure_of(study.trials[0]) == "its process died"

        study.enqueue_trial({"x": 5.0})
        assert [die_in_a_trial(study) for _ in range(2)] == [5.0, 5.0]  # the retry dies, too
        study.optimize(lambda trial: trial.suggest_float("x", 0, 6), n_trials=2)
        assert [trial.params["x"] for trial in study.trials].count(5.0) == 2


def check_that_each_waiting_trial_is_taken_once(url: str) -> None:
    with opened_study(url) as study:
        for _ in range(30):
            study.enqueue_trial({"x": 1.0})

    def take(_worker: int) -> list[int]:
        with opened_study(url) as study:
            return [ask(study).number for _ in range(15)]

    with ThreadPoolExecutor(2) as pool:
        taken = [number for numbers in pool.map(take, range(2)) for number in numbers]
    assert sorted(taken) == list(range(30))
