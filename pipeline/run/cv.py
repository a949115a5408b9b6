"""The run: folds are trained one after the other or side by side, then thresholds and scores follow."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Iterator, Sequence

import pandas as pd
from filelock import FileLock, Timeout

from pipeline import processes
from pipeline.competition.folds.rows import FULL_FIT, rows_of
from pipeline.config import Config
from pipeline.device import explained_memory_errors, loading_workers, pick_device
from pipeline.errors import ConfigError, RunError
from pipeline.events import FoldFinished, Listener, RunOpened
from pipeline.files import read_json, write_csv, write_json, write_parquet
from pipeline.images.readers import ImageSources
from pipeline.prediction.out_of_fold import predict_fold
from pipeline.run.environment import describe_environment
from pipeline.run.folder import RunFolder
from pipeline.run.parallel_folds import run_side_by_side
from pipeline.run.plan import Plan
from pipeline.run.records import DataDigest, FoldDone, PredictSettings, Scores
from pipeline.run.score import score_run
from pipeline.training.fold_folder import FoldFolder
from pipeline.training.fold_task import FoldTask
from pipeline.training.image_inputs import open_sources
from pipeline.training.pixels import check_pixels, read_pixels, record_pixels
from pipeline.training.seed_models import train_seed_models

_LOCK_SECONDS = 2


def run_cv(
    plan: Plan,
    run: RunFolder,
    *,
    folds: Sequence[int] | None,
    fresh: bool,
    listen: Listener,
) -> Scores | None:
    """Train the folds that are not finished, then score those that are.

    Args:
        plan: what `prepare` made.
        run: the run's folder; a finished part of it is kept.
        folds: the folds to train, all if None; with an empty list, what is finished is scored.
        fresh: delete what the folder held before.
        listen: told of each step, epoch and fold.

    Several processes may call this together; all get the scores, the first one writes.

    Returns:
        The scores of the finished folds, be they all or, after `train.time_budget` or with `folds`, a part; None
        while no fold is finished.

    Raises:
        RunError: the folder belongs to other settings or other data, or a fold is being trained elsewhere.
        PipelineError: as training and prediction raise.
    """
    wanted = _wanted_folds(plan, folds)
    with contextlib.ExitStack() as held:
        processes.from_first(lambda: _open_run(plan, run, fresh=fresh))
        if processes.is_first():
            held.enter_context(run.in_use())
        listen(RunOpened())
        return _train_and_score(plan, run, wanted, full_fit=plan.config.train.full_fit and folds is None, listen=listen)


def _train_and_score(
    plan: Plan, run: RunFolder, wanted: Sequence[int], *, full_fit: bool, listen: Listener
) -> Scores | None:
    left = processes.from_first(lambda: [fold for fold in wanted if not _is_finished(plan, run, fold)])
    for fold in sorted({*wanted} - {*left}):
        listen(FoldFinished(fold, resumed=True))
    parallel = _folds_beside(plan)
    if left:
        _open_sources(plan, run, listen)  # builds the cache, before folds share it
    if parallel > 1 and left:  # also for the last fold: its number of threads decides its last bits
        run_side_by_side(run_fold, plan, run, left, processes=parallel, listen=listen)
    else:
        for fold in left:
            run_fold(plan, run, fold, listen)
    scores = processes.from_first(lambda: _score_finished(plan, run))
    if full_fit and scores is not None and scores.complete:
        _fit_all_rows(plan, run, listen)
    return scores


def _fit_all_rows(plan: Plan, run: RunFolder, listen: Listener) -> None:
    """The full fit, as a fold that nothing validates; the folds' scores stand on the disk by now."""
    if processes.from_first(lambda: _is_finished(plan, run, FULL_FIT)):
        listen(FoldFinished(FULL_FIT, resumed=True))
    else:
        run_fold(plan, run, FULL_FIT, listen)


def _open_run(plan: Plan, run: RunFolder, *, fresh: bool) -> None:
    """Make the folder ready, and write what the run is about."""
    if not fresh:
        _check_same_data(plan, run)
        _keep_pixels(run)
        check_pixels(plan.config.images, run.images)
    run.open(plan.config, fresh=fresh)
    if not run.environment.exists():
        write_json(run.environment, describe_environment(seed=plan.config.train.seed))
    write_csv(run.folds, _fold_frame(plan))
    data_digest(plan).save(run.data)


def _keep_pixels(run: RunFolder) -> None:
    """A run goes on with its search's pixels; one begun before they were written down, with exact ones."""
    pixels = "exact" if run.has_trainings() else read_pixels(run.search.images)
    if pixels is not None:
        record_pixels(run.images, pixels)


def _folds_beside(plan: Plan) -> int:
    """How many folds are trained side by side: with several processes for each, one."""
    return plan.config.train.parallel_folds if processes.count() == 1 else 1


def _score_finished(plan: Plan, run: RunFolder) -> Scores | None:
    """Score the folds that are finished; once more where another process has finished one meanwhile."""
    scores, scored = None, list[int]()
    while scored != (finished := [fold for fold in plan.fold_numbers if _is_finished(plan, run, fold)]):
        scores, scored = score_run(plan, run, finished), finished
    return scores


def run_fold(plan: Plan, run: RunFolder, fold: int, listen: Listener) -> None:
    """Bring one fold, or the full fit, to its end: weights, out-of-fold logits, then `done.json`.

    What is trained is only predicted again, for views, averages or seeds that have changed since. Where
    `train.time_budget` is used up, the fold's state is saved and it stays unfinished.

    Raises:
        RunError: another process works on this fold.
    """
    folder = run.fold(fold)
    with _locked(run, fold), explained_memory_errors():
        trained = processes.from_first(lambda: folder.is_trained(plan.config.train))
        finished = _finish_fold(plan, run, fold, listen=listen)
    if finished:
        listen(FoldFinished(fold, resumed=trained))


@contextlib.contextmanager
def _locked(run: RunFolder, fold: int) -> Iterator[None]:
    """Nobody else works on this fold meanwhile. Of several processes that do so together, the first has the lock."""
    folder = run.fold(fold)
    lock = FileLock(folder.lock, timeout=_LOCK_SECONDS)

    def acquire() -> None:
        folder.resume.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(
                f"{folder.path.name} of {run.path} is being trained by another process",
                got=_owner(folder),
                remedy="wait for it or stop it; several commands may share a run when their --folds differ",
            ) from None
        write_json(folder.owner, {"pid": os.getpid(), "host": socket.gethostname()})

    try:
        processes.from_first(acquire)
        yield
    finally:
        lock.release()  # nothing happens where it is not held


def _owner(folder: FoldFolder) -> str | None:
    """Who holds the fold's lock, in words; None in the moment before that is written."""
    if not folder.owner.exists():
        return None
    owner = read_json(folder.owner)
    return f"process {owner['pid']} on {owner['host']}"


def _is_finished(plan: Plan, run: RunFolder, fold: int) -> bool:
    """Whether nothing is left to do; clears what a kill between the last two writes may have left."""
    folder = run.fold(fold)
    if not folder.done.exists() or FoldDone.load(folder.done).predict != PredictSettings.of(plan.config):
        return False
    _clear_states(plan, folder)
    return True


def _clear_states(plan: Plan, folder: FoldFolder) -> None:
    for member in folder.seed_models(plan.config.train)[::-1]:  # the fold's lock lies in the first one's
        member.delete_resume()  # another command, with other --folds, may do so, too


def _open_sources(plan: Plan, run: RunFolder, listen: Listener) -> ImageSources:
    """The table's images, cached beside the run by the first process alone."""
    return processes.from_first(
        lambda: open_sources(plan.config, plan.table.paths, folder=run.cache, record=run.images, listen=listen)
    )


def _finish_fold(plan: Plan, run: RunFolder, fold: int, *, listen: Listener) -> bool:
    """Train what is not trained, then predict the rows that validate; False if `train.time_budget` ended first."""
    folder, rows = run.fold(fold), rows_of(plan.folds, fold)
    sources = _open_sources(plan, run, listen)
    beside = _folds_beside(plan) * processes.local_count()
    workers = loading_workers(plan.config.train.workers, pick_device(), beside=beside)
    task = FoldTask(plan.config, plan.table, rows, sources, folder, workers)
    if not train_seed_models(task, listen=listen, deadline=plan.deadline):
        return False
    frame = None
    if rows.validation.size:
        weights = [model.weights for model in folder.seed_models(plan.config.train)]
        frame = predict_fold(plan.config, plan.table, rows, source=sources.evaluation, weights=weights, workers=workers)
    processes.from_first(lambda: _close_fold(plan, folder, frame))
    return True


def _close_fold(plan: Plan, folder: FoldFolder, frame: pd.DataFrame | None) -> None:
    folder.done.unlink(missing_ok=True)  # of another prediction, which the new one must not be taken for
    if frame is not None:
        write_parquet(folder.oof, frame)
    FoldDone(plan.config.train.epochs, PredictSettings.of(plan.config)).save(folder.done)
    _clear_states(plan, folder)


def _wanted_folds(plan: Plan, folds: Sequence[int] | None) -> list[int]:
    unknown = sorted(set(folds or ()) - set(plan.fold_numbers))
    if unknown:
        raise ConfigError(
            f"--folds: there is no fold {unknown[0]}",
            expected=f"folds out of {', '.join(map(str, plan.fold_numbers))}",
            remedy="name existing folds, or leave --folds out to run all",
        )
    return sorted(set(folds)) if folds is not None else list(plan.fold_numbers)


def _fold_frame(plan: Plan) -> pd.DataFrame:
    groups = plan.table.groups if plan.table.groups is not None else [""] * len(plan.table.ids)
    return pd.DataFrame({"id": plan.table.ids, "group": groups, "fold": plan.folds})


def data_digest(plan: Plan) -> DataDigest:
    """The labels in order, and a digest of every row's id and targets that does not depend on the rows' order."""
    rows = sorted(zip(plan.table.ids, (row.tobytes().hex() for row in plan.table.targets), strict=True))
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return DataDigest(plan.table.labels, digest)


def _check_same_data(plan: Plan, run: RunFolder) -> None:
    """Refuse a run that was begun with other rows, labels or folds: its trained folds would not fit the new ones."""
    if not (run.folds.exists() and run.data.exists()):
        return
    if DataDigest.load(run.data) != data_digest(plan):
        raise RunError(
            f"{run.path} was begun with other rows, labels or targets than the training data give now",
            remedy="restore the data it began with, give another --run NAME, or start over with --fresh",
        )
    old = pd.read_csv(run.folds, dtype=str, keep_default_na=False)
    new = _fold_frame(plan).astype(str)
    if dict(zip(old["id"], old["fold"], strict=True)) != dict(zip(new["id"], new["fold"], strict=True)):
        raise RunError(
            f"{run.folds} holds other folds than the training data give now",
            remedy="restore the data this run began with, give another --run NAME, or start over with --fresh",
        )


def parse_folds(text: str | None, config: Config, run: RunFolder, *, fresh: bool) -> list[int] | None:
    """The folds that `--folds` asks for; None for all, the finished folds of `run` for `finished`.

    Raises:
        ConfigError: `text` is no list of numbers, or asks for finished folds together with `fresh`.
    """
    if text is None:
        return None
    if text == "finished":
        if fresh:
            raise ConfigError(
                "--folds finished trains nothing, --fresh and --debug start over", remedy="leave out one of the two"
            )
        return run.finished_folds(config.train)
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise ConfigError(
            f"--folds: '{text}' is not a list of fold numbers",
            remedy="write it like --folds 0 or --folds 0,2, or --folds finished",
        )
    return [int(part) for part in text.split(",")]
