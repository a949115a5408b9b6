"""The study: its trials wait in the database as tickets, and each ticket is drawn by one worker.

A study of 30 trials begins with 30 tickets (waiting trials), the first with the config's own values. A failed trial
is replaced by a new ticket; a trial whose process died is repeated once with the same values. So waiting, running and
finished trials always sum to 30, for any number of workers, and no trial is lost or trained twice.
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
from optuna.trial import Trial as Trial  # re-exported

from pipeline.config import SearchConfig
from pipeline.errors import PipelineError, RunError
from pipeline.search.samplers import build_pruner, build_sampler
from pipeline.search.space import Parameter, Values
from pipeline.search.storage import beating, locked

Pruned = optuna.TrialPruned
"""Raised inside a trial's training when the pruner stops it."""

_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
_FAILURES_IN_A_ROW = 10
_INTERRUPTED = "interrupted"

optuna.logging.set_verbosity(optuna.logging.ERROR)


class TimeUsed(Exception):  # noqa: N818 (not an error)
    """`train.time_budget` ended before the search; finished trials are saved."""


class SearchError(PipelineError):
    """A search cannot continue."""


class Progress(NamedTuple):
    """The counts of trials over all workers, and the best score."""

    done: int  # complete or pruned
    running: int
    waiting: int
    failed: int
    best: float | None  # of the complete ones


class TicketStudy:
    """A study shared by any number of workers.

    Args:
        storage: the database.
        name: the name of the study in it.
        lock: a lock file that all workers on this machine use.
        search: the search section of the config.
        maximize: whether a higher score is better.
        epochs: number of epochs of a trial, for the pruner.
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
        """Delete all trials of this study; other studies of the database are kept."""
        with self._locked():
            optuna.delete_study(storage=self._storage, study_name=self._name)
            self.study = self._create_or_load()

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self._storage, self._name, self._lock)

    def close(self) -> None:
        """Close the connections to the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def begin(self, settings: Mapping[str, Any], *, own: Values | None) -> dict[str, Any]:
        """Add the missing tickets and return the settings that the study was begun with.

        Args:
            settings: the settings that all trials share, saved for other commands to compare.
            own: the config's own values, the first ticket; None if they lie outside the space.
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
        """Start the next ticket and return it; None if no ticket is left (trials may still be running).

        Raises:
            SearchError: the last ten trials failed.
        """
        with self._locked():
            self._fail_dead_trials()
            trials = self._trials()
            _refuse_endless_failures(trials)
            taken = sum(trial.state in (*_DONE, TrialState.RUNNING) for trial in trials)
            tickets = [trial.number for trial in trials if trial.state is TrialState.WAITING]
            if taken >= self._search.trials or not tickets:
                return None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                warnings.filterwarnings("ignore", "Heartbeat of storage", UserWarning)  # `alive` records heartbeats
                self.study.sampler = build_sampler(self._search, tickets[0])
                trial = self.study.ask()  # the first ticket
            self._storage.record_heartbeat(trial._trial_id)
            trial.set_user_attr("host", socket.gethostname())  # if missing, the process died before its first heartbeat
            return trial

    def alive(self, trial: Trial) -> AbstractContextManager[None]:
        """A context that records heartbeats of the trial; without them another worker would take it over."""
        return beating(self._storage, trial._trial_id)

    def complete(self, trial: Trial, score: float) -> bool:
        """Record a trial's score, or a failure if it is not finite; returns whether the score counts."""
        if not math.isfinite(score):
            self.fail(trial, f"its score is {score}")
            return False
        return self._record(trial, TrialState.COMPLETE, score)

    def prune(self, trial: Trial) -> None:
        """Record that the pruner stopped the trial; its score is the last one reported."""
        self._record(trial, TrialState.PRUNED)

    def fail(self, trial: Trial, reason: str) -> None:
        """Record why the trial has no score, and add a new ticket."""
        self._record(trial, TrialState.FAIL, reason=reason)

    def give_back(self, trial: Trial) -> None:
        """Record that the trial was interrupted, and add a ticket with its values."""
        self._record(trial, TrialState.FAIL, reason=_INTERRUPTED)

    def running_numbers(self) -> list[int]:
        """The numbers of the running trials of all workers."""
        return [trial.number for trial in self._trials() if trial.state is TrialState.RUNNING]

    def progress(self) -> Progress:
        """The progress of the study."""
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
        """Whether `owner` may continue with the result: the first owner that asks may, no other."""
        with self._locked():
            first = self.study.user_attrs.get("goes_on", owner)
            self.study.set_user_attr("goes_on", first)
        return bool(first == owner)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _enqueue(self, values: Values, *, kind: str) -> None:
        self.study.enqueue_trial(dict(values), user_attrs={"kind": kind, "given": dict(values)})

    def _record(
        self, trial: Trial, state: TrialState, score: float | None = None, *, reason: str | None = None
    ) -> bool:
        with self._locked():
            if trial.number not in self.running_numbers():  # another worker took it over
                return False
            if reason is not None:
                trial.set_user_attr("failure", reason)
            self.study.tell(trial, score, state=state)
            if reason == _INTERRUPTED:
                self._enqueue(_values_of(trial), kind=trial.user_attrs["kind"])
            elif state is TrialState.FAIL:
                self._enqueue({}, kind="sampled")
        return True

    def _fail_dead_trials(self) -> None:
        """Fail the trials whose process died, and add a ticket: the same values once, after that a new one."""
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
    """Check that a study was begun with the settings of now: other scores could not be compared.

    Raises:
        RunError: they differ; the message names each setting with its old and new value.
    """
    changed = [key for key in sorted({*begun, *now}) if begun.get(key) != now.get(key)]
    if changed:
        lines = "\n".join(f"  - {key}: {begun.get(key)!r} in the search, {now.get(key)!r} now" for key in changed)
        raise RunError(
            f"the search in {where} was begun with other settings\n{lines}",
            remedy="give another --run NAME, go back to the old values, or start over with --fresh",
        )
