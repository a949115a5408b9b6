"""The study: every trial to come is a ticket in the database, and each ticket is drawn by one worker.

A study of 30 trials is begun with 30 tickets (waiting trials), the first with the config's own values. A trial
that fails puts a new ticket in, one whose process died the same values once more. So the tickets, the running and
the finished trials always add up, however many workers draw, and none is lost or doubled.
"""

from __future__ import annotations

import json
import math
import socket
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from optuna.trial import Trial as Trial  # part of what this module offers

from pipeline.config import SearchConfig
from pipeline.errors import PipelineError, RunError
from pipeline.search.samplers import build_pruner, build_sampler
from pipeline.search.space import Parameter, Values
from pipeline.search.storage import beating, locked

Pruned = optuna.TrialPruned
"""Raised inside a trial's training when it is not worth going on."""

_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
_FAILURES_IN_A_ROW = 10
_INTERRUPTED = "interrupted"

optuna.logging.set_verbosity(optuna.logging.ERROR)


class TimeUsed(Exception):  # noqa: N818 (nothing is wrong)
    """`train.time_budget` ended before the search did; all that it found is saved."""


class SearchError(PipelineError):
    """A search cannot go on, or belongs to other settings."""


class Progress(NamedTuple):
    """How far the study is, over all workers."""

    done: int  # complete or pruned
    running: int
    waiting: int
    failed: int
    best: float | None  # of the complete ones


class TicketStudy:
    """A study shared by any number of workers.

    Args:
        storage: the database.
        name: of the study in it.
        lock: a file that workers on this machine share.
        search: the search section of the config.
        maximize: whether a higher score wins.
        epochs: of a trial, for the pruner that plans with them.
    """

    def __init__(
        self,
        storage: RDBStorage,
        *,
        name: str,
        lock: Path,
        search: SearchConfig,
        maximize: bool,
        epochs: int,
    ) -> None:
        self._storage, self._name, self._lock, self._search = storage, name, lock, search
        self._direction: Literal["maximize", "minimize"] = "maximize" if maximize else "minimize"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._pruner = build_pruner(search, epochs)
        with self._locked():
            self.study = self._create_or_load()

    def _create_or_load(self) -> optuna.Study:
        return optuna.create_study(
            storage=self._storage,
            study_name=self._name,
            direction=self._direction,
            pruner=self._pruner,
            load_if_exists=True,
        )

    def start_over(self) -> None:
        """Forget all trials, also in a database that other runs use."""
        with self._locked():
            optuna.delete_study(storage=self._storage, study_name=self._name)
            self.study = self._create_or_load()

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self._storage, self._name, self._lock)

    def close(self) -> None:
        """Give the database's connections back."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def begin(self, settings: Mapping[str, Any], *, own: Values | None) -> dict[str, Any]:
        """Put the tickets in, if that is not done; the settings that the study was begun with.

        Args:
            settings: what all its trials have in common, for another command to compare with.
            own: the config's own values, the first ticket; None where they lie outside the space.
        """
        with self._locked():
            if "settings" not in self.study.user_attrs:
                self.study.set_user_attr("settings", json.dumps(settings))
                if own is not None:
                    self._enqueue(own, kind="own values")
            trials = self._trials()
            known = [trial for trial in trials if trial.state in (*_DONE, TrialState.RUNNING, TrialState.WAITING)]
            for _ in range(self._search.trials - len(known)):
                self._enqueue({}, kind="sampled")
            begun: dict[str, Any] = json.loads(self.study.user_attrs["settings"])
        return begun

    def draw(self) -> Trial | None:
        """A ticket for this worker, now running; None if there is none left (others may still be running).

        Raises:
            SearchError: trial after trial failed.
        """
        with self._locked():
            self._bury_the_dead()
            trials = self._trials()
            _refuse_endless_failures(trials)
            taken = sum(trial.state in (*_DONE, TrialState.RUNNING) for trial in trials)
            tickets = [trial.number for trial in trials if trial.state is TrialState.WAITING]
            if taken >= self._search.trials or not tickets:
                return None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                warnings.filterwarnings("ignore", "Heartbeat of storage", UserWarning)  # `alive` beats in its place
                self.study.sampler = build_sampler(self._search, tickets[0])
                trial = self.study.ask()  # the first ticket
            self._storage.record_heartbeat(trial._trial_id)
            trial.set_user_attr("host", socket.gethostname())  # whose lack tells of a death before the first beat
            return trial

    def alive(self, trial: Trial) -> AbstractContextManager[None]:
        """Inside, the database is told that the trial lives; without it another worker would take it over."""
        return beating(self._storage, trial._trial_id)

    def complete(self, trial: Trial, score: float) -> bool:
        """Write down a trial's score; one that is no number is a failure. Whether it counts."""
        if not math.isfinite(score):
            self.fail(trial, f"its score is {score}")
            return False
        return self._tell(trial, TrialState.COMPLETE, score)

    def prune(self, trial: Trial) -> None:
        """Write down that it was not worth going on; its score is the last one reported."""
        self._tell(trial, TrialState.PRUNED)

    def fail(self, trial: Trial, reason: str) -> None:
        """Write down why there is no score, and put a new ticket in."""
        self._tell(trial, TrialState.FAIL, reason=reason)

    def give_back(self, trial: Trial) -> None:
        """For a trial that a person interrupted: its values come again."""
        self._tell(trial, TrialState.FAIL, reason=_INTERRUPTED)

    def running_numbers(self) -> list[int]:
        """The trials that some worker is training."""
        return [trial.number for trial in self._trials() if trial.state is TrialState.RUNNING]

    def progress(self) -> Progress:
        """Counts of trials, and the best score."""
        trials = self._trials()
        states = [trial.state for trial in trials]
        complete = [trial.value for trial in trials if trial.state is TrialState.COMPLETE and trial.value is not None]
        choose = max if self.study.direction is optuna.study.StudyDirection.MAXIMIZE else min
        return Progress(
            done=sum(state in _DONE for state in states),
            running=states.count(TrialState.RUNNING),
            waiting=states.count(TrialState.WAITING),
            failed=states.count(TrialState.FAIL),
            best=choose(complete) if complete else None,
        )

    def claim(self, owner: str) -> bool:
        """Whether `owner` is to go on with the result: the first to ask, and nobody else."""
        with self._locked():
            first = self.study.user_attrs.get("goes_on", owner)
            self.study.set_user_attr("goes_on", first)
        return bool(first == owner)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _enqueue(self, values: Values, *, kind: str) -> None:
        self.study.enqueue_trial(dict(values), user_attrs={"kind": kind, "given": dict(values)})

    def _tell(self, trial: Trial, state: TrialState, score: float | None = None, *, reason: str | None = None) -> bool:
        with self._locked():
            if trial.number not in self.running_numbers():  # this process slept so long that another took it over
                return False
            if reason is not None:
                trial.set_user_attr("failure", reason)
            self.study.tell(trial, score, state=state)
            if reason == _INTERRUPTED:
                self._enqueue(_values_of(trial), kind=trial.user_attrs["kind"])
            elif state is TrialState.FAIL:
                self._enqueue({}, kind="sampled")
        return True

    def _bury_the_dead(self) -> None:
        """Fail the trials whose process died; their values come once more, then a new ticket takes their place."""
        running = self.running_numbers()
        for trial in self._trials():
            if trial.state is TrialState.RUNNING and "host" not in trial.user_attrs:
                self.study.tell(trial.number, state=TrialState.FAIL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.study)
        for trial in self._trials():
            if trial.number in running and trial.state is TrialState.FAIL:
                again = trial.user_attrs["kind"] != "retry"
                self._enqueue(_values_of(trial) if again else {}, kind="retry" if again else "sampled")


def failure_of(trial: FrozenTrial) -> str:
    """Why a failed trial has no score."""
    return str(trial.user_attrs.get("failure", "its process died"))


def suggest(trial: Trial, parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    """The trial's value of every parameter, by name."""
    return {parameter.name: _suggest(trial, parameter) for parameter in parameters}


def _suggest(trial: Trial, parameter: Parameter) -> Any:
    dimension = parameter.dimension
    if parameter.choices is not None:
        return trial.suggest_categorical(parameter.name, list(parameter.choices))
    assert dimension.low is not None  # a range has both
    assert dimension.high is not None
    if parameter.integer:
        step = int(dimension.step or 1)
        return trial.suggest_int(parameter.name, int(dimension.low), int(dimension.high), step=step, log=dimension.log)
    return trial.suggest_float(parameter.name, dimension.low, dimension.high, step=dimension.step, log=dimension.log)


def _values_of(trial: FrozenTrial | Trial) -> dict[str, Any]:
    return {**trial.user_attrs["given"], **trial.params}


def _refuse_endless_failures(trials: list[FrozenTrial]) -> None:
    last = [trial for trial in trials if trial.state.is_finished()][-_FAILURES_IN_A_ROW:]
    reasons = [trial.user_attrs.get("failure") for trial in last]
    if len(last) == _FAILURES_IN_A_ROW and all(reason not in (None, _INTERRUPTED) for reason in reasons):
        raise SearchError(
            f"the last {_FAILURES_IN_A_ROW} trials failed",
            got=f"trial {last[-1].number}: {reasons[-1]}",
            remedy="narrow search.space to values that train, then start over with --fresh",
        )


def check_begun_alike(begun: Mapping[str, Any], now: Mapping[str, Any], *, where: str) -> None:
    """Refuse to add trials to a study of other settings: their scores could not be compared.

    Raises:
        RunError: naming each setting with its old and new value.
    """
    changed = [key for key in sorted({*begun, *now}) if begun.get(key) != now.get(key)]
    if changed:
        lines = "\n".join(f"  - {key}: {begun.get(key)!r} in the search, {now.get(key)!r} now" for key in changed)
        raise RunError(
            f"the search in {where} was begun with other settings\n{lines}",
            remedy="give another --run NAME, go back to the old values, or start over with --fresh",
        )
