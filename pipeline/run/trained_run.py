"""A finished run, opened: the folds, models and labels that submissions and reports are made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.competition.folds import ALWAYS_TRAIN, folds_mark
from pipeline.competition.folds.rows import FULL_FIT
from pipeline.config import Config
from pipeline.errors import RunError, listing
from pipeline.files import read_folds, read_predictions
from pipeline.run.folder import RunFolder
from pipeline.run.records import BlendRecord, FoldDone, PredictSettings, Thresholds
from pipeline.training.fold_folder import FoldFolder


@dataclass(frozen=True)
class TrainedRun:
    """A scored run: all its folds, or those that were finished when it was scored.

    Attributes:
        thresholds: fitted on all folds that are scored.
        folds: those whose models predict: the scored ones, or some of them.
        models: the folders of all models that predict: those of the folds, and of a full fit; none of a blend.
        notes: sentences on folds that are left out, and on a full fit.
    """

    folder: RunFolder
    config: Config
    thresholds: Thresholds
    folds: tuple[int, ...]
    models: tuple[FoldFolder, ...]
    train_ids: frozenset[str]
    notes: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the run's thresholds."""
        return tuple(self.thresholds.values)


def open_run(run: RunFolder, chosen: Sequence[int] | None = None) -> TrainedRun:
    """Open a scored run with the folds that it was scored on, or with the `chosen` ones of these and no full fit.

    Raises:
        RunError: no fold, or not each chosen one, is finished and scored as the run's config and folds are now.
    """
    config = run.read_config()
    if run.blended.exists():
        return _open_blend(run, config, chosen)
    rows = read_folds(run.folds)
    numbers = sorted({*rows["fold"].tolist()} - {ALWAYS_TRAIN})
    settings = PredictSettings.of(config)
    finished = [fold for fold in numbers if _predicted_with(run.fold(fold)) == settings]
    if not run.thresholds.exists():
        raise _not_scored(run, finished, numbers)
    thresholds = Thresholds.load(run.thresholds)
    lacking = about_lacking_models(run, config)
    if not finished and lacking is not None:
        raise RunError(f"{run.path}: no fold has a model for each of train.seeds={config.train.seeds}", remedy=lacking)
    fits_settings = (
        thresholds.policy == config.thresholds.policy
        and thresholds.calibration == config.thresholds.calibration
        and thresholds.rows == config.submission.rows
        and thresholds.predict == settings
    )
    if not fits_settings or not {*thresholds.folds} <= {*finished}:
        raise RunError(
            f"{run.path}: its thresholds were not fitted with the settings in its config.yaml, or not on its "
            "finished folds",
            remedy="run the same run_cv.py command again; it applies new settings without training",
        )
    folds = list(thresholds.folds)
    if sorted({*read_predictions(run.oof, ["fold"])["fold"].tolist()}) != folds:
        raise RunError(
            f"{run.oof} holds other folds than the thresholds were fitted on",
            remedy="run the same run_cv.py command again; it scores what is finished without training",
        )
    absent = sorted({*(chosen or ())} - {*folds})
    if absent:
        raise RunError(
            f"{run.path}: fold {absent[0]} is not {'scored' if absent[0] in finished else 'finished'}",
            expected=f"folds out of {listing(folds)}",
            remedy="name other folds, or run the same run_cv.py command again, without --folds or with this fold",
        )
    used = sorted({*(folds if chosen is None else chosen)})
    models = [model for fold in used for model in run.fold(fold).seed_models(config.train)]
    full_fit, about_full_fit = _full_fit(run, config) if chosen is None else ((), [])
    notes = (*_left_out(run, used, [fold for fold in finished if fold not in folds], numbers), *about_full_fit)
    return TrainedRun(run, config, thresholds, tuple(used), (*models, *full_fit), frozenset(rows.index), notes)


def _open_blend(run: RunFolder, config: Config, chosen: Sequence[int] | None) -> TrainedRun:
    if chosen is not None:
        raise RunError(
            f"{run.path} is a blend: it has no models of folds",
            remedy="leave --folds away; or predict the members with --folds, and blend them again",
        )
    if not run.blend.exists():
        raise RunError(f"{run.path}: the blend is not complete", remedy="repeat the python -m pipeline blend command")
    notes = tuple(f"{run.path}: {note}" for note in BlendRecord.load(run.blend).notes)
    train_ids = frozenset(read_folds(run.folds).index)
    thresholds = Thresholds.load(run.thresholds)
    return TrainedRun(run, config, thresholds, thresholds.folds, (), train_ids, notes)


def about_lacking_models(run: RunFolder, config: Config) -> str | None:
    """The remedy for folds that were finished before `train.seeds` was raised; None where there are none."""
    lacking = run.folds_lacking_models(config.train)
    if not lacking:
        return None
    seeds = min(FoldDone.load(run.fold(fold).done).predict.seeds for fold in lacking)
    folds = f"fold {lacking[0]} was" if len(lacking) == 1 else f"folds {listing(lacking)} were"
    return (
        f"{folds} finished with train.seeds={seeds}: with that value the same run_cv.py command scores what is "
        f"finished without training; with train.seeds={config.train.seeds}, and without --folds finished, it trains "
        "the models that are added"
    )


def _predicted_with(folder: FoldFolder) -> PredictSettings | None:
    """The settings of a finished fold's predictions; None where it is not finished."""
    return FoldDone.load(folder.done).predict if folder.done.exists() else None


def _full_fit(run: RunFolder, config: Config) -> tuple[tuple[FoldFolder, ...], list[str]]:
    """The models that were trained on all rows, where the config asks for them, and a note on them."""
    models = run.fold(FULL_FIT).seed_models(config.train)
    if not config.train.full_fit:
        return (), []
    if not run.fold(FULL_FIT).is_trained(config.train, config.predict.engine):
        return (), [f"{run.path}: the full fit is not finished and left out; run_cv.py without --folds goes on with it"]
    count = "1 model is" if len(models) == 1 else f"{len(models)} models are"
    return models, [f"{run.path}: {count} trained on all rows; scores and thresholds are of the folds' models alone"]


def _not_scored(run: RunFolder, finished: list[int], numbers: list[int]) -> RunError:
    goes_on = "the same run_cv.py command goes on where it stopped"
    if not finished:
        return RunError(f"{run.path}: no fold of the run is finished yet", remedy=f"finish one first: {goes_on}")
    missing = [fold for fold in numbers if fold not in finished]
    return RunError(
        f"{run.path}: the run is not finished: {f'folds {listing(missing)}' if missing else 'no thresholds'}",
        got=f"finished: {folds_mark(finished, numbers) or 'all folds'}",
        remedy=f"{goes_on}; with --folds finished it scores the finished folds, which can then be submitted",
    )


def _left_out(run: RunFolder, folds: list[int], since: list[int], numbers: list[int]) -> list[str]:
    """Notes on the folds that are not used, and on those finished `since` the run was scored."""
    mark = folds_mark(folds, numbers)
    if mark is None:
        return []
    notes = [f"{run.path}: {mark}; thresholds, scores and models are of these alone"]
    if since:
        notes.append(
            f"{run.path}: finished since it was scored: {listing(since)}; run_cv.py with --folds finished takes them in"
        )
    return notes


def refuse_repeats(paths: Sequence[Path | str]) -> None:
    """Raise RunError where two paths lead to the same folder or file."""
    places = [Path(path).resolve() for path in paths]
    for count, path in enumerate(paths):
        if places[count] in places[:count]:
            raise RunError(f"{path} is given twice", remedy="give each one once")


def require_same_labels(runs: Sequence[TrainedRun]) -> None:
    """Raise RunError where the labels of two runs differ; their order may."""
    for other in runs[1:]:
        if set(other.labels) != set(runs[0].labels):
            raise RunError(
                f"{other.folder.path} and {runs[0].folder.path} predict different labels",
                expected=listing(runs[0].labels, 12),
                got=listing(other.labels, 12),
                remedy="average only runs of the same competition",
            )


def require_models(runs: Sequence[TrainedRun]) -> None:
    """Raise RunError where one of the runs is a blend, which has no models."""
    for run in runs:
        if not run.models:
            raise RunError(
                f"{run.folder.path} is a blend: it has no models",
                remedy="name its members that are runs; a bundle of several runs averages them with equal weights",
            )
