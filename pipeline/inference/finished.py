"""Finished runs, opened: what a submission, or a picture of a run, needs to know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.errors import RunError, listing
from pipeline.files import read_folds, read_json
from pipeline.runs import RunFolder


@dataclass(frozen=True)
class FinishedRun:
    """A run whose folds are all done."""

    run: RunFolder
    config: Config
    labels: tuple[str, ...]
    folds: tuple[int, ...]
    train_ids: frozenset[str]


def open_run(run: RunFolder) -> FinishedRun:
    """Read what a submission needs to know of a run. Raises RunError where a fold is not finished."""
    config = run.read_config()
    rows = read_folds(run.folds)
    folds, ids = rows["fold"], rows.index
    numbers = tuple(sorted(set(folds) - {-1}))
    missing = [fold for fold in numbers if not run.fold(fold).done.exists()]
    if missing or not run.thresholds.exists():
        raise RunError(
            f"{run.path}: the run is not finished: " + (f"folds {listing(missing)}" if missing else "no thresholds"),
            remedy="finish it first: the same run_cv.py command goes on where it stopped",
        )
    facts = read_json(run.thresholds)
    now = config.predict.model_dump(include={"views", "average"})
    asked = {
        "policy": config.thresholds.policy,
        "calibration": config.thresholds.calibration,
        "rows": config.submission.rows,
        "predict": now,
    }
    predicted = [read_json(run.fold(fold).done)["predict"] for fold in numbers]
    if {key: facts.get(key) for key in asked} != asked or predicted != [now] * len(numbers):
        raise RunError(
            f"{run.path}: its thresholds were not fitted with the settings in its config.yaml",
            remedy="run the same run_cv.py command again; it applies new settings without training",
        )
    labels = tuple(facts["values"])
    return FinishedRun(run, config, labels, numbers, frozenset(ids))


def require_same_labels(runs: Sequence[FinishedRun]) -> None:
    """Raise RunError where the labels of two runs, or their order, differ."""
    for other in runs[1:]:
        if other.labels != runs[0].labels:
            raise RunError(
                f"{other.run.path} and {runs[0].run.path} predict different labels",
                expected=listing(runs[0].labels, 12),
                got=listing(other.labels, 12),
                remedy="average only runs of the same competition",
            )
