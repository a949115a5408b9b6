"""Finished runs, opened: what a submission, or a picture of a run, needs to know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.competition.folds import folds_mark
from pipeline.competition.folds.rows import FULL_FIT
from pipeline.config import Config
from pipeline.config.schema import predict_settings
from pipeline.errors import RunError, listing
from pipeline.files import read_folds, read_json, read_predictions
from pipeline.run.folder import RunFolder
from pipeline.training.fold_folder import FoldFolder


@dataclass(frozen=True)
class TrainedRun:
    """A scored run: all its folds, or those that were finished when it was scored.

    Attributes:
        folds: the folds that its scores and thresholds rest on; their models predict.
        members: the folders of all models that predict: those of the folds, and of a full fit.
        notes: sentences on folds that are left out, and on a full fit.
    """

    run: RunFolder
    config: Config
    labels: tuple[str, ...]
    folds: tuple[int, ...]
    members: tuple[FoldFolder, ...]
    train_ids: frozenset[str]
    notes: tuple[str, ...]


def open_run(run: RunFolder) -> TrainedRun:
    """Read what a submission needs to know of a scored run.

    A run that was scored before all its folds were finished is opened with the folds that it was scored on: its
    thresholds belong to these.

    Raises:
        RunError: no fold is finished, or the run was not scored, or not as its config and its folds are now.
    """
    config = run.read_config()
    rows = read_folds(run.folds)
    numbers = sorted({*rows["fold"].tolist()} - {-1})
    now = predict_settings(config)
    done = [fold for fold in numbers if _predicted_with(run.fold(fold)) == now]
    if not run.thresholds.exists():
        raise _not_scored(run, done, numbers)
    facts = read_json(run.thresholds)
    folds = [fold for fold in facts.get("folds", []) if fold in done]
    lacking = about_lacking_models(run, config)
    if not done and lacking is not None:
        raise RunError(f"{run.path}: no fold has a model for each of train.seeds={config.train.seeds}", remedy=lacking)
    asked = {
        "policy": config.thresholds.policy,
        "calibration": config.thresholds.calibration,
        "rows": config.submission.rows,
        "predict": now,
        "folds": folds,
    }
    if {key: facts.get(key) for key in asked} != asked:
        raise RunError(
            f"{run.path}: its thresholds were not fitted with the settings in its config.yaml, or not on its "
            "finished folds",
            remedy="run the same run_cv.py command again; it applies new settings without training",
        )
    labels = tuple(facts["values"])
    if sorted({*read_predictions(run.oof, ["fold"])["fold"].tolist()}) != folds:
        raise RunError(
            f"{run.oof} holds other folds than the thresholds were fitted on",
            remedy="run the same run_cv.py command again; it scores what is finished without training",
        )
    members = [member for fold in folds for member in run.fold(fold).seed_models(config.train)]
    full, about_full = _full_fit(run, config)
    notes = [*_left_out(run, folds, done, numbers), *about_full]
    return TrainedRun(run, config, labels, tuple(folds), (*members, *full), frozenset(rows.index), tuple(notes))


def about_lacking_models(run: RunFolder, config: Config) -> str | None:
    """What to do about folds that were finished before `train.seeds` was raised; None where there are none."""
    lacking = run.folds_lacking_models(config.train)
    if not lacking:
        return None
    seeds = min(read_json(run.fold(fold).done)["predict"].get("seeds", 1) for fold in lacking)
    folds = f"fold {lacking[0]} was" if len(lacking) == 1 else f"folds {listing(lacking)} were"
    return (
        f"{folds} finished with train.seeds={seeds}: with that value the same run_cv.py command scores what is "
        f"finished without training; with train.seeds={config.train.seeds}, and without --folds finished, it trains "
        "the models that are added"
    )


def _predicted_with(folder: FoldFolder) -> dict[str, Any] | None:
    """The settings of a finished fold's predictions; None where it is not finished."""
    return read_json(folder.done)["predict"] if folder.done.exists() else None


def _full_fit(run: RunFolder, config: Config) -> tuple[tuple[FoldFolder, ...], list[str]]:
    """The models that were trained on all rows, where the config asks for them, and what to say of them."""
    members = run.fold(FULL_FIT).seed_models(config.train)
    if not config.train.full_fit:
        return (), []
    if not run.fold(FULL_FIT).is_trained(config.train):
        return (), [f"{run.path}: the full fit is not finished and left out; run_cv.py without --folds goes on with it"]
    count = "1 model is" if len(members) == 1 else f"{len(members)} models are"
    return members, [f"{run.path}: {count} trained on all rows; scores and thresholds are of the folds' models alone"]


def _not_scored(run: RunFolder, done: list[int], numbers: list[int]) -> RunError:
    goes_on = "the same run_cv.py command goes on where it stopped"
    if not done:
        return RunError(f"{run.path}: no fold of the run is finished yet", remedy=f"finish one first: {goes_on}")
    missing = [fold for fold in numbers if fold not in done]
    return RunError(
        f"{run.path}: the run is not finished: {f'folds {listing(missing)}' if missing else 'no thresholds'}",
        got=f"finished: {folds_mark(done, numbers) or 'all folds'}",
        remedy=f"{goes_on}; with --folds finished it scores the finished folds, which can then be submitted",
    )


def _left_out(run: RunFolder, folds: list[int], done: list[int], numbers: list[int]) -> list[str]:
    mark = folds_mark(folds, numbers)
    if mark is None:
        return []
    since = [fold for fold in done if fold not in folds]
    notes = [f"{run.path}: {mark}; thresholds, scores and models are of these alone"]
    if since:
        notes.append(
            f"{run.path}: finished since it was scored: {listing(since)}; run_cv.py with --folds finished takes them in"
        )
    return notes


def require_same_labels(runs: Sequence[TrainedRun]) -> None:
    """Raise RunError where the labels of two runs, or their order, differ."""
    for other in runs[1:]:
        if other.labels != runs[0].labels:
            raise RunError(
                f"{other.run.path} and {runs[0].run.path} predict different labels",
                expected=listing(runs[0].labels, 12),
                got=listing(other.labels, 12),
                remedy="average only runs of the same competition",
            )
