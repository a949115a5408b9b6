"""A worker of a search: Optuna draws its trials, it trains them."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

import optuna
from optuna.study import MaxTrialsCallback
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.config import Config
from pipeline.errors import CompetitionError, ImageError, PipelineError, RunError
from pipeline.events import Listener, TrialFinished
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from pipeline.search.objective import Trials, trial_config
from pipeline.search.space import Parameter, config_with
from pipeline.search.storage import GRACE_SECONDS, opened_storage
from pipeline.search.study import (
    DONE,
    INTERRUPTED,
    SearchError,
    TimeUsed,
    best_score,
    build_sampler,
    finished_trials,
    open_study,
    refuse_endless_failures,
    suggest,
)
from pipeline.search.trial_score import TrialScore, build_trial_score
from pipeline.seeds import stable_seed


class _FailedTrial(Exception):  # noqa: N818 (not an error)
    """The values of a trial do not train; the search continues with others."""


class _Elsewhere(optuna.samplers.RandomSampler):
    """Draws the trial after a failed one. TPE leaves failed trials out, so it would go on where they failed."""


@dataclass(frozen=True)
class SearchTask:
    """The task of a worker; can be pickled."""

    plan: Plan
    parameters: tuple[Parameter, ...]
    workers: int

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds that a trial trains, in the config's order."""
        return tuple(dict.fromkeys(self.plan.config.search.folds))

    @property
    def config(self) -> Config:
        """The config of a trial, still with the config's own values."""
        return trial_config(self.plan.config)

    @contextlib.contextmanager
    def opened_study(self, run: RunFolder, trial_score: TrialScore) -> Iterator[optuna.Study]:
        """A connection to the study, closed at the end."""
        search, maximize = self.plan.config.search, trial_score.greater_is_better
        with opened_storage(search.storage, run.search.study) as storage:
            yield open_study(storage, run.path.name, search, maximize=maximize, epochs=self.config.train.epoch_count)


def work(search: SearchTask, run: RunFolder, worker: int, listen: Listener) -> None:
    """Draw and train trials until the study has as many as the config asks for, or its time is over."""
    if search.workers > 1:  # the parent process ends its workers with SIGTERM
        signal.signal(signal.SIGTERM, _as_interrupt)
    trial_score = build_trial_score(search.plan)
    trials = Trials(search.plan, run, search.folds, trial_score, search.workers)
    try:
        with search.opened_study(run, trial_score) as study:
            study.sampler = build_sampler(search.plan.config.search, len(study.trials) + worker)
            run_trials(search, study, trials, listen)
    except TimeUsed:
        return  # `run_search` reports it
    except KeyboardInterrupt:
        if search.workers == 1:
            raise


def run_trials(search: SearchTask, study: optuna.Study, trials: Trials, listen: Listener) -> None:
    """Train the trials that Optuna draws until enough are complete or pruned, over all workers of the study.

    Each of N workers ends its own last trial, so there may be up to N - 1 trials more than `search.trials`.

    Raises:
        SearchError: the last ten trials failed, or another worker took a trial over.
        TimeUsed: the plan's deadline passed within a trial.
    """
    settings = search.plan.config.search
    seconds = min(60 * (settings.timeout or math.inf), search.plan.deadline - time.monotonic())

    def report(study: optuna.Study, trial: FrozenTrial) -> None:
        names = {TrialState.FAIL: "failed", TrialState.PRUNED: "pruned"}
        outcome = names.get(trial.state) or f"{trial.value:.4f}"
        done = finished_trials(study)
        listen(TrialFinished(trial.number, outcome, done, settings.trials, best_score(study), trial.params))

    if finished_trials(study) >= settings.trials:
        return
    try:
        study.optimize(
            lambda trial: _score(search, study, trials, trial, listen),
            timeout=seconds,
            catch=(_FailedTrial,),
            callbacks=(report, refuse_endless_failures, MaxTrialsCallback(settings.trials, DONE)),
        )
    except ValueError as error:
        if not str(error).startswith("Cannot tell"):  # Optuna's words for a trial that has ended
            raise
        raise SearchError(
            f"a trial was lost: this process gave no sign of life for {GRACE_SECONDS} seconds",
            got="another worker has marked it FAIL and tries its values again",
            remedy="the same command goes on",
        ) from error


def _score(search: SearchTask, study: optuna.Study, trials: Trials, trial: Trial, listen: Listener) -> float:
    """Train one trial and return its score: the objective of the study."""
    usual = build_sampler(search.plan.config.search, trial.number)  # a seed that no other worker has
    study.sampler = study.sampler if isinstance(study.sampler, _Elsewhere) else usual
    values = suggest(trial, search.parameters)
    study.sampler = usual

    def on_score(fold: int, epoch: int, score: float) -> None:
        _report(search, trial, fold, epoch, score)

    try:
        config = config_with(search.config, search.parameters, values, source=f"trial {trial.number}")
        return trials.train(trial.number, config, listen=listen, on_score=on_score)
    except optuna.TrialPruned:
        raise
    except PipelineError as error:
        if not isinstance(error, ImageError | CompetitionError | RunError):
            trial.set_user_attr("failure", error.problem)
            study.sampler = _Elsewhere(
                seed=stable_seed("elsewhere", search.plan.config.search.seed, trial.number) % 2**32
            )
            raise _FailedTrial from error
        _try_again(study, trial)  # other values would not help
        raise
    except BaseException:
        _try_again(study, trial)
        raise


def _try_again(study: optuna.Study, trial: Trial) -> None:
    """The next trial gets the values of this one, which was interrupted."""
    trial.set_user_attr("failure", INTERRUPTED)
    study.enqueue_trial(trial.params, user_attrs={"kind": trial.user_attrs.get("kind", "sampled")})


def _report(search: SearchTask, trial: Trial, fold: int, epoch: int, score: float) -> None:
    """Report a score to the pruner: each epoch of the first fold, or for `wilcoxon` each fold's last epoch.

    Scores of several folds do not form one curve, so the epochs of other folds are not compared.
    """
    if not math.isfinite(score):
        raise SearchError(f"its score is {score}", remedy="set another search.judge, or search folds with every label")
    if search.plan.config.search.pruner == "wilcoxon":
        if epoch < search.config.train.epoch_count:
            return
        trial.report(score, step=fold)
    elif fold == search.folds[0]:
        trial.report(score, step=epoch)
    else:
        return
    last = epoch == search.config.train.epoch_count and fold == search.folds[-1]
    if not last and trial.should_prune():
        raise optuna.TrialPruned


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
