"""The run: train the folds one by one or side by side, then fit thresholds and score."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from pipeline import processes
from pipeline.competition.folds.rows import FULL_FIT, rows_of
from pipeline.config import Config
from pipeline.device import explained_memory_errors
from pipeline.errors import ConfigError, RunError
from pipeline.events import Fold, FoldFinished, Listener, RunOpened
from pipeline.files import read_json, write_json, write_parquet
from pipeline.images.readers import ImageSources
from pipeline.prediction.out_of_fold import logits_frame
from pipeline.run.folder import RunFolder
from pipeline.run.opening import opened
from pipeline.run.parallel_folds import run_side_by_side
from pipeline.run.plan import Plan
from pipeline.run.ray_executor import run_on_ray
from pipeline.run.records import FoldDone, PredictSettings, Scores
from pipeline.run.score import score_run
from pipeline.training.build_prediction import build_runtime, load_ensemble
from pipeline.training.distributed import from_first
from pipeline.training.fold import predict_validation, train_fold, train_seed_model
from pipeline.training.fold_folder import FoldFolder
from pipeline.training.fold_task import FoldTask
from pipeline.training.frozen_maps import MapCache
from pipeline.training.image_inputs import open_sources

_LOCK_SECONDS = 2


def run_cv(plan: Plan, run: RunFolder, *, folds: Sequence[int] | None, fresh: bool, listen: Listener) -> Scores | None:
    """Train the folds that are not finished, then score those that are.

    Several processes may call this together; all get the scores, the first one writes.

    Args:
        plan: what `prepare` made.
        run: the run's folder; a finished part of it is kept.
        folds: the folds to train, all if None; with an empty list, the finished ones are scored.
        fresh: delete what the folder held before.
        listen: receives each step, epoch and fold.

    Returns:
        The scores of the finished folds: all or, after `train.time_budget` or with `folds`, some; None while no fold
        is finished.

    Raises:
        RunError: the folder belongs to other settings or other data, or a fold is being trained elsewhere.
        PipelineError: as training and prediction raise.
    """
    wanted = _wanted_folds(plan, folds)
    with contextlib.ExitStack() as held:
        from_first(lambda: held.enter_context(opened(plan, run, fresh=fresh)))
        listen(RunOpened())
        left, beside = _unfinished(plan, run, wanted, listen), _folds_beside(plan)
        on_ray = plan.config.train.executor == "ray"
        if left:
            _open_images(plan, run, listen)  # builds the cache, before folds share it
            train, shared = plan.config.train, beside > 1 or on_ray
            if shared and train.frozen_backbone and not all(run.fold(fold).is_trained(train) for fold in left):
                _ = build_task(plan, run, left[0], folder=run.fold(left[0]), listen=listen).maps
        if left and on_ray:
            _run_folds_on_ray(plan, run, left, listen)
        elif left and beside > 1:  # also for one fold: the number of threads changes the last digits
            run_side_by_side(run_fold, plan, run, left, processes=beside, listen=listen)
        else:
            for fold in left:
                run_fold(plan, run, fold, listen)
        scores = from_first(lambda: _score_finished(plan, run))
        if plan.config.train.full_fit and folds is None and scores is not None and scores.complete:
            if from_first(lambda: _is_finished(plan, run, FULL_FIT)):
                listen(FoldFinished(FULL_FIT, resumed=True))
            elif on_ray:
                _run_folds_on_ray(plan, run, [FULL_FIT], listen)
            else:
                run_fold(plan, run, FULL_FIT, listen)
        return scores


def run_fold(plan: Plan, run: RunFolder, fold: Fold, listen: Listener) -> None:
    """Finish one fold, or the full fit: train it, predict its validation rows, then write `done.json`.

    A trained model is not trained again; it only predicts, after a change of views, `predict.average` or seeds. Where
    `train.time_budget` is used up, the fold's state is saved and it stays unfinished.

    Raises:
        RunError: another process works on this fold.
    """
    with _locked(run, fold):
        _finish_fold(plan, run, fold, listen)


def _run_folds_on_ray(plan: Plan, run: RunFolder, folds: Sequence[Fold], listen: Listener) -> None:
    """As `run_fold` for each of them. The locks are held here: a lost machine may leave its own behind."""
    seeds = range(plan.config.train.seeds)
    with contextlib.ExitStack() as held:
        for fold in folds:
            held.enter_context(_locked(run, fold))
        if len(seeds) > 1:
            models = [(fold, number) for fold in folds for number in seeds]
            run_on_ray(_train_seed_model, plan, run, models, plan=plan, listen=listen, what="fold and seed model")
        run_on_ray(_finish_fold, plan, run, folds, plan=plan, listen=listen)


def _train_seed_model(plan: Plan, run: RunFolder, model: tuple[Fold, int], listen: Listener) -> None:
    fold, number = model
    with explained_memory_errors():
        task = build_task(plan, run, fold, folder=run.fold(fold), beside=_folds_beside(plan), listen=listen)
        train_seed_model(task, number, listen=listen, deadline=plan.deadline)


def _finish_fold(plan: Plan, run: RunFolder, fold: Fold, listen: Listener) -> None:
    folder = run.fold(fold)
    with explained_memory_errors():
        trained = from_first(lambda: folder.is_trained(plan.config.train))
        task = build_task(plan, run, fold, folder=folder, beside=_folds_beside(plan), listen=listen)
        finished = train_fold(task, listen=listen, deadline=plan.deadline)
        if finished:
            frame = _predict(task) if task.rows.validation.size else None
            from_first(lambda: _close_fold(plan, folder, frame))
    if finished:
        listen(FoldFinished(fold, resumed=trained))


def build_task(
    plan: Plan, run: RunFolder, fold: Fold, *, folder: FoldFolder, beside: int = 1, listen: Listener
) -> FoldTask:
    """The training of a fold.

    Args:
        plan: with the configuration of the training.
        run: has the cache of images beside it.
        fold: its number, or `FULL_FIT`.
        folder: the files of the training.
        beside: how many trainings run at once on this machine, each in as many processes as this one.
        listen: receives the progress of building the cache.
    """
    runtime = build_runtime(plan.config, beside=beside * processes.local_count(), listen=listen)
    sources, maps = _open_images(plan, run, listen), None
    if plan.config.train.frozen_backbone:
        place = run.cache if plan.config.images.cache in ("auto", "none") else Path(plan.config.images.cache)
        maps = MapCache(plan.config, plan.table, sources, runtime, place, plan.deadline, listen)
    return FoldTask(plan.config, plan.table, rows_of(plan.folds, fold), sources, folder, runtime, maps)


def _open_images(plan: Plan, run: RunFolder, listen: Listener) -> ImageSources:
    """The table's images, cached beside the run by the first process alone."""
    return from_first(lambda: open_sources(plan.config, plan.table.paths, folder=run.cache, listen=listen))


def _predict(task: FoldTask) -> pd.DataFrame:
    """The out-of-fold logits of the fold's seed models together."""
    weights = [model.weights for model in task.folder.seed_models(task.config.train)]
    ensemble = load_ensemble(task.config, weights, labels=task.table.labels, device=task.runtime.device)
    return logits_frame(predict_validation(task, ensemble), task.table, task.rows.validation)


def _close_fold(plan: Plan, folder: FoldFolder, frame: pd.DataFrame | None) -> None:
    folder.done.unlink(missing_ok=True)  # an earlier one does not describe the new prediction
    if frame is not None:
        write_parquet(folder.oof, frame)
    FoldDone(plan.config.train.epoch_count, PredictSettings.of(plan.config)).save(folder.done)
    _clear_states(plan, folder)


def _folds_beside(plan: Plan) -> int:
    """The number of folds to train side by side; 1 if several processes train each fold."""
    return plan.config.train.parallel_folds if processes.count() == 1 else 1


def _score_finished(plan: Plan, run: RunFolder) -> Scores | None:
    """Score the finished folds; once more where another command has finished one meanwhile."""
    scores, scored = None, list[int]()
    while scored != (finished := [fold for fold in plan.fold_numbers if _is_finished(plan, run, fold)]):
        scores, scored = score_run(plan, run, finished), finished
    return scores


def _unfinished(plan: Plan, run: RunFolder, wanted: Sequence[int], listen: Listener) -> list[int]:
    """Those of the `wanted` folds that are left to do; reports the others as finished before."""
    left = from_first(lambda: [fold for fold in wanted if not _is_finished(plan, run, fold)])
    for fold in wanted:
        if fold not in left:
            listen(FoldFinished(fold, resumed=True))
    return left


def _is_finished(plan: Plan, run: RunFolder, fold: Fold) -> bool:
    """Whether nothing is left to do; clears what a kill between the last two writes may have left."""
    folder = run.fold(fold)
    if not folder.done.exists() or FoldDone.load(folder.done).predict != PredictSettings.of(plan.config):
        return False
    _clear_states(plan, folder)
    return True


def _clear_states(plan: Plan, folder: FoldFolder) -> None:
    for model in folder.seed_models(plan.config.train)[::-1]:  # the fold's lock is in the folder of the first one
        model.delete_resume()  # another command, with other --folds, may do so, too


@contextlib.contextmanager
def _locked(run: RunFolder, fold: Fold) -> Iterator[None]:
    """No other command works on this fold meanwhile. Of the processes of one command, the first has the lock."""
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
        from_first(acquire)
        yield
    finally:
        lock.release()  # does nothing where it is not held


def _owner(folder: FoldFolder) -> str | None:
    """The process that holds the fold's lock; None if its file is not written yet."""
    if not folder.owner.exists():
        return None
    owner = read_json(folder.owner)
    return f"process {owner['pid']} on {owner['host']}"


def _wanted_folds(plan: Plan, folds: Sequence[int] | None) -> list[int]:
    unknown = sorted(set(folds or ()) - set(plan.fold_numbers))
    if unknown:
        raise ConfigError(
            f"--folds: there is no fold {unknown[0]}",
            expected=f"folds out of {', '.join(map(str, plan.fold_numbers))}",
            remedy="name existing folds, or leave --folds out to run all",
        )
    return sorted(set(folds)) if folds is not None else list(plan.fold_numbers)


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
