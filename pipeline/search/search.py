"""Runs a search: checks the settings, starts the workers, writes the result."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import optuna
from optuna.trial import TrialState

from pipeline.competition.folds.rows import rows_of
from pipeline.config import training_values
from pipeline.errors import ConfigError, RunError, listing
from pipeline.events import Listener, Note, RunOpened
from pipeline.files import read_predictions
from pipeline.run.folder import RunFolder
from pipeline.run.opening import data_digest
from pipeline.run.parallel_folds import run_side_by_side
from pipeline.run.plan import Plan
from pipeline.run.ray_executor import run_on_ray
from pipeline.search.head_proxy import make_maps
from pipeline.search.result import search_facts, write_result
from pipeline.search.space import config_with, own_values, parameters_of
from pipeline.search.storage import opened_storage
from pipeline.search.study import TimeUsed, begin_study, finished_trials
from pipeline.search.table import LeftOut, SearchFacts
from pipeline.search.trial_score import build_trial_score
from pipeline.search.worker import SearchTask, work

_WILCOXON_FOLDS = 4  # with fewer, its test never reaches the significance to stop a trial


class Found(NamedTuple):
    """The result of a finished search."""

    plan: Plan  # with the best values
    facts: SearchFacts


def run_search(
    plan: Plan, run: RunFolder, *, workers: int, fresh: bool, command: str, listen: Listener
) -> Found | None:
    """Run the search of a run to its end, or continue one that was begun; see the `search` keys.

    Args:
        plan: the plan with the config's own values.
        run: the run's folder.
        workers: number of processes on this machine; commands on other machines may share the study.
        fresh: delete the run and its study first.
        command: the command line, for the heading of best.yaml.
        listen: receives the events of trials and trainings.

    Raises:
        ConfigError: the space or the folds are not valid.
        RunError: the folder belongs to a run without a search, or the study was begun with other settings.
        SearchError: too many trials in a row failed, or none is complete.

    Returns:
        The result, or None if `train.time_budget` ended first; finished trials are saved.
    """
    if workers < 1:
        raise ConfigError(f"--workers: {workers} is not possible", remedy="give 1 or more")
    try:
        return _search(plan, run, workers=workers, fresh=fresh, command=command, listen=listen)
    except TimeUsed:
        budget = plan.config.train.time_budget
        listen(Note(f"train.time_budget={budget} is used; the same command continues the search"))
        return None


def _search(plan: Plan, run: RunFolder, *, workers: int, fresh: bool, command: str, listen: Listener) -> Found:
    labels = plan.table.labels
    positives = [int(count) for count in plan.table.positives.sum(axis=0)]
    search = SearchTask(plan, parameters_of(plan.config, labels, positives), workers)
    trial_score = build_trial_score(plan)
    notes = _check_folds(plan, search.folds)
    own, outside = own_values(plan.config, search.parameters)
    fresh = run.begin(fresh=fresh) or fresh
    with contextlib.ExitStack() as held:
        held.enter_context(run.in_use())
        _check_folder(plan, run)
        if fresh:
            _forget(search, run)
        study = held.enter_context(search.opened_study(run, trial_score))
        listen(RunOpened())
        begin_study(study, _settings(plan), own=None if outside else own, where=str(run.path))
        _train_trials(search, run, listen)
        _remove_dead_trainings(run, study)
        if time.monotonic() > plan.deadline and finished_trials(study) < plan.config.search.trials:
            raise TimeUsed
        facts = search_facts(
            study,
            search.parameters,
            own=own,
            trial_score=trial_score,
            folds=search.folds,
            notes=[*notes, *outside],
        )
        write_result(run.search, facts, search.parameters, command=command)
        from pipeline.search.figures import save_figures  # imports matplotlib, which takes a second

        undrawn = save_figures(study, run.search, score=trial_score.name, ranked=facts.ranked)
    best = config_with(plan.config, search.parameters, facts.best.chosen, source="the best trial")
    return Found(replace(plan, config=best), facts._replace(notes=(*facts.notes, *undrawn)))


def _train_trials(search: SearchTask, run: RunFolder, listen: Listener) -> None:
    plan, workers = search.plan, range(search.workers)
    on_ray, settings = plan.config.train.executor == "ray", plan.config.search
    on_maps = settings.proxy == "head" or plan.config.train.frozen_backbone
    if on_maps and on_ray:
        run_on_ray(_make_maps, plan, run, search.folds, plan=plan, listen=listen)
        if time.monotonic() > plan.deadline:
            raise TimeUsed
    elif on_maps:
        for fold in search.folds:
            make_maps(plan, run, fold, listen=listen)  # by all cores, before workers share them
    if on_ray:
        if (settings.storage or "sqlite").startswith("sqlite"):
            sentence = "search.storage is a SQLite file, which workers on several machines may damage"
            listen(Note(sentence, remedy="name a PostgreSQL database, see docs/machines.md"))
        run_on_ray(work, search, run, workers, plan=plan, listen=listen, what="worker")
    elif search.workers > 1:
        run_side_by_side(work, search, run, workers, processes=search.workers, listen=listen, what="worker")
    else:
        work(search, run, 0, listen)


def _make_maps(plan: Plan, run: RunFolder, fold: int, listen: Listener) -> None:
    """The feature maps of a fold, as a task of Ray; none if `train.time_budget` ends first."""
    with contextlib.suppress(TimeUsed):
        make_maps(plan, run, fold, listen=listen)


def left_out_scores(plan: Plan, run: RunFolder) -> LeftOut:
    """The trial score of each fold of a finished run, apart for the folds that its search did not use."""
    trial_score, searched = build_trial_score(plan), set(plan.config.search.folds)
    scores: dict[int, float] = {}
    for fold in plan.fold_numbers:
        ids = [plan.table.ids[row] for row in rows_of(plan.folds, fold).validation]
        labels = list(plan.table.labels)
        logits = read_predictions(run.fold(fold).oof, labels).loc[ids, labels].to_numpy(dtype=float)
        scores[fold] = trial_score(fold, logits)
    return LeftOut(
        trial_score.name,
        {fold: score for fold, score in scores.items() if fold in searched},
        {fold: score for fold, score in scores.items() if fold not in searched},
    )


def _check_folds(plan: Plan, folds: Sequence[int]) -> list[str]:
    unknown = sorted({*folds} - {*plan.fold_numbers})
    if unknown:
        raise ConfigError(
            f"search.folds: there is no fold {unknown[0]}",
            expected=f"folds out of {listing(plan.fold_numbers, 20)}",
            remedy="name existing folds",
        )
    if plan.config.search.pruner == "wilcoxon" and len(folds) < _WILCOXON_FOLDS:
        return [
            f"search.pruner=wilcoxon compares folds: with fewer than {_WILCOXON_FOLDS} search.folds it stops nothing"
        ]
    return []


def _check_folder(plan: Plan, run: RunFolder) -> None:
    if plan.config.search.then == "stop" or not run.config.exists() or run.search.path.exists():
        return
    raise RunError(
        f"{run.path} holds a run that was begun without a search",
        remedy="give the search a --run NAME of its own, only search (search.then=stop), or start over with --fresh",
    )


def _settings(plan: Plan) -> dict[str, Any]:
    """The settings that two trials must share for their scores to be comparable."""
    search = plan.config.search.model_dump(mode="json")
    compared = ("space", "share", "judge", "folds", "epochs", "proxy")
    return {
        **training_values(plan.config),
        **{f"search.{key}": search[key] for key in compared},
        "labels, ids and targets": data_digest(plan).targets_sha256,
    }


def _forget(search: SearchTask, run: RunFolder) -> None:
    """Delete an earlier study of this run; other studies of the database are kept."""
    with opened_storage(search.plan.config.search.storage, run.search.study) as storage, contextlib.suppress(KeyError):
        optuna.delete_study(study_name=run.path.name, storage=storage)


def _remove_dead_trainings(run: RunFolder, study: optuna.Study) -> None:
    """Delete the trainings of killed workers; a trial that another worker trains keeps its folder."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for left in run.search.begun_trials():
        if left.path.name not in {str(trial.number) for trial in running}:
            left.delete()
