"""A worker of a search: draws trials, trains them and records their results."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from dataclasses import dataclass
from types import FrameType
from typing import Any

from pipeline.config import Config
from pipeline.errors import CompetitionError, ImageError, PipelineError, RunError
from pipeline.events import Listener, TrialFinished
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from pipeline.search.head_trials import HeadTrials, open_maps
from pipeline.search.objective import FullTrials, trial_config
from pipeline.search.space import Parameter, config_with
from pipeline.search.storage import open_storage
from pipeline.search.study import Pruned, SearchError, TicketStudy, TimeUsed, Trial, suggest
from pipeline.search.trial_score import TrialScore, build_trial_score

_POLL_SECONDS = 2.0


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

    def open_study(self, run: RunFolder, trial_score: TrialScore) -> TicketStudy:
        """Open a connection to the study; the caller closes it."""
        search = self.plan.config.search
        return TicketStudy(
            open_storage(search.storage, run.search.study, lock=run.search.lock),
            name=run.path.name,
            lock=run.search.lock,
            search=search,
            maximize=trial_score.greater_is_better,
            epochs=self.config.train.epoch_count,
        )


def work(search: SearchTask, run: RunFolder, _worker: int, listen: Listener) -> None:
    """Draw and train trials until the study is complete. Waits for trials of other workers, because they may fail."""
    if search.workers > 1:  # the parent process ends its workers with SIGTERM
        signal.signal(signal.SIGTERM, _as_interrupt)
    trial_score = build_trial_score(search.plan)
    trials = _build_trials(search, run, trial_score, listen)
    try:
        with contextlib.closing(search.open_study(run, trial_score)) as study:
            _draw_all(search, study, trials, listen)
    except TimeUsed:
        return  # the trial was given back; `run_search` reports it
    except KeyboardInterrupt:
        if search.workers == 1:
            raise


def _draw_all(search: SearchTask, study: TicketStudy, trials: FullTrials | HeadTrials, listen: Listener) -> None:
    minutes = search.plan.config.search.timeout
    deadline = min(time.monotonic() + 60 * (math.inf if minutes is None else minutes), search.plan.deadline)
    while True:
        late = time.monotonic() > deadline
        trial = None if late else study.draw()
        if trial is not None:
            _try(search, study, trials, trial, listen)
        elif late or study.progress().running == 0:
            return
        else:
            time.sleep(_POLL_SECONDS)


def _build_trials(
    search: SearchTask, run: RunFolder, trial_score: TrialScore, listen: Listener
) -> FullTrials | HeadTrials:
    if search.plan.config.search.proxy == "head":
        maps = tuple(open_maps(search.plan, run, fold, listen=listen) for fold in search.folds)
        return HeadTrials(search.plan, maps, trial_score)
    return FullTrials(search.plan, run, search.folds, trial_score, search.workers)


def _try(
    search: SearchTask, study: TicketStudy, trials: FullTrials | HeadTrials, trial: Trial, listen: Listener
) -> None:
    """Train one trial and record its result in any case."""
    history: dict[int, list[float]] = {fold: [] for fold in search.folds}

    def on_score(fold: int, epoch: int, score: float) -> None:
        history[fold].append(score)
        _report(search, trial, fold, epoch, score)

    values: dict[str, Any] = {}
    try:
        with study.alive(trial):
            values = suggest(trial, search.parameters)
            config = config_with(search.config, search.parameters, values, source=f"trial {trial.number}")
            score = trials.train(trial.number, config, listen=listen, on_score=on_score)
            trial.set_user_attr("folds", {str(fold): scores[-1] for fold, scores in history.items()})
        outcome = f"{score:.4f}" if study.complete(trial, score) else "failed"
    except Pruned:
        study.prune(trial)
        outcome = "pruned"
    except (ImageError, CompetitionError, RunError):
        study.give_back(trial)  # other values would not help
        raise
    except PipelineError as error:
        study.fail(trial, error.problem)
        outcome = "failed"
    except BaseException:
        study.give_back(trial)
        raise
    progress = study.progress()
    listen(TrialFinished(trial.number, outcome, progress.done, search.plan.config.search.trials, progress.best, values))


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
        raise Pruned


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
