"""The search: what is checked before, the workers, and what is written down at the end."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from pipeline.competition.folds.rows import rows_of
from pipeline.config import training_values
from pipeline.errors import ConfigError, RunError, listing
from pipeline.events import Listener, Note, RunOpened
from pipeline.files import read_predictions
from pipeline.run.folder import RunFolder
from pipeline.run.opening import data_digest
from pipeline.run.parallel_folds import run_side_by_side
from pipeline.run.plan import Plan
from pipeline.search.head_trials import open_maps
from pipeline.search.result import search_facts, write_result
from pipeline.search.space import config_with, own_values, parameters_of
from pipeline.search.study import TicketStudy, TimeUsed, check_begun_alike
from pipeline.search.table import LeftOut, SearchFacts
from pipeline.search.trial_score import build_judge
from pipeline.search.worker import SearchTask, work
from pipeline.training.image_inputs import open_sources
from pipeline.training.pixels import PixelKind, check_pixels, read_pixels, record_pixels

_PIXELS = "pixels (images.cache_format)"
_WILCOXON_FOLDS = 4  # below, its test can never be sure enough to stop a trial


class Found(NamedTuple):
    """What a search ended with."""

    plan: Plan  # with the best values
    facts: SearchFacts
    goes_on: FileLock | None  # held by the one command that is to train all folds


def run_search(
    plan: Plan, run: RunFolder, *, workers: int, fresh: bool, command: str, listen: Listener
) -> Found | None:
    """Bring the study of a run to its end, or go on with one that was begun; see the `search` keys.

    Args:
        plan: what `prepare` made of the config's own values.
        run: the run's folder.
        workers: processes on this machine; commands elsewhere may share the study.
        fresh: delete the run and its study first.
        command: what was typed, for the heading of best.yaml.
        listen: told of each trial.

    Raises:
        ConfigError: the space or the folds do not fit.
        RunError: the folder belongs to a run without a search, or the study was begun with other settings.
        SearchError: trial after trial failed, or none is complete.

    Returns:
        The result; None if `train.time_budget` ended first: what was found is saved.
    """
    if workers < 1:
        raise ConfigError(f"--workers: {workers} is not possible", remedy="give 1 or more")
    try:
        return _search(plan, run, workers=workers, fresh=fresh, command=command, listen=listen)
    except TimeUsed:
        budget = plan.config.train.time_budget
        listen(Note(f"train.time_budget={budget} is used; the same command goes on searching"))
        return None


def _search(plan: Plan, run: RunFolder, *, workers: int, fresh: bool, command: str, listen: Listener) -> Found:
    labels = plan.table.labels
    positives = [int(count) for count in plan.table.positives.sum(axis=0)]
    search = SearchTask(plan, parameters_of(plan.config, labels, positives), workers, plan.config.search.timeout)
    judge = build_judge(plan)
    notes = _check_folds(plan, search.folds)
    own, outside = own_values(plan.config, search.parameters)
    run.begin(fresh=fresh)
    _check_folder(plan, run)
    with contextlib.ExitStack() as held:
        held.enter_context(run.in_use())
        pixels = _decide_pixels(plan, run, listen)
        study = held.enter_context(contextlib.closing(search.open_study(run, judge)))
        if fresh:
            study.start_over()
        listen(RunOpened())
        now = {**_settings(plan), _PIXELS: pixels}
        begun = {_PIXELS: "exact", **study.begin(now, own=None if outside else own)}
        check_begun_alike(begun, now, where=str(run.path))
        _remove_dead_trainings(run, study)
        _train_trials(search, run, listen)
        _remove_dead_trainings(run, study)  # those, too, that only now are known to be dead
        if time.monotonic() > plan.deadline and study.progress().done < plan.config.search.trials:
            raise TimeUsed
        facts = search_facts(
            study.study, search.parameters, own=own, judge=judge, folds=search.folds, notes=[*notes, *outside]
        )
        write_result(run.search, facts, search.parameters, command=command)
        from pipeline.search.figures import save_figures  # with matplotlib: a second that no run needs

        undrawn = save_figures(study.study, run.search, score=judge.name, ranked=facts.ranked)
        goes_on = _first_to_go_on(study, run) if plan.config.search.then == "cv" else None
    best = config_with(plan.config, search.parameters, facts.best.chosen, source="the best trial")
    return Found(replace(plan, config=best), facts._replace(notes=(*facts.notes, *undrawn)), goes_on)


def _decide_pixels(plan: Plan, run: RunFolder, listen: Listener) -> PixelKind:
    """Which pixels all trials see; a search that was begun before this was written down goes on with exact ones."""
    begun_before = run.search.exists()
    run.search.path.mkdir(parents=True, exist_ok=True)
    if begun_before:
        record_pixels(run.search.images, "exact")
    decided = check_pixels(plan.config.images, run.search.images)
    if decided is None:
        open_sources(plan.config, plan.table.paths, folder=run.cache, record=run.search.images, listen=listen)
        decided = read_pixels(run.search.images)
    assert decided is not None
    return decided


def _train_trials(search: SearchTask, run: RunFolder, listen: Listener) -> None:
    if search.plan.config.search.proxy == "head":
        for fold in search.folds:
            open_maps(search.plan, run, fold, listen=listen)
    if search.workers > 1:
        run_side_by_side(
            work, search, run, range(search.workers), processes=search.workers, listen=listen, what="worker"
        )
    else:
        work(search, run, 0, listen)


def _first_to_go_on(study: TicketStudy, run: RunFolder) -> FileLock | None:
    """Of commands elsewhere the study lets one go on; of those on this folder, the one that gets the lock."""
    if not study.claim(f"{socket.gethostname()}:{run.path.resolve()}"):
        return None
    lock = FileLock(run.search.goes_on, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


def left_out_scores(plan: Plan, run: RunFolder) -> LeftOut:
    """The judge's score of every fold of a finished run, apart for those that its search looked at."""
    judge, searched = build_judge(plan), set(plan.config.search.folds)
    scores: dict[int, float] = {}
    for fold in plan.fold_numbers:
        ids = [plan.table.ids[row] for row in rows_of(plan.folds, fold).validation]
        labels = list(plan.table.labels)
        logits = read_predictions(run.fold(fold).oof, labels).loc[ids, labels].to_numpy(dtype=float)
        scores[fold] = judge(fold, logits)
    return LeftOut(
        judge.name,
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
    """All that the scores of two trials must have in common to be compared."""
    search = plan.config.search.model_dump(mode="json")
    compared = ("space", "share", "judge", "folds", "epochs", "proxy")
    return {
        **training_values(plan.config),
        **{f"search.{key}": search[key] for key in compared},
        "labels, ids and targets": data_digest(plan).targets_sha256,
    }


def _remove_dead_trainings(run: RunFolder, study: TicketStudy) -> None:
    """Clear what killed workers left behind; a trial that runs elsewhere keeps its folder."""
    alive = {str(number) for number in study.running_numbers()}
    for left in run.search.begun_trials():
        if left.path.name not in alive:
            left.delete()
