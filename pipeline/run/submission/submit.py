"""From finished runs to a validated submission: predict, decide, validate, write."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.competition.submission import (
    SubmissionFormat,
    build_submission,
    check_sample,
    submission_form,
    write_submission,
)
from pipeline.competition.test_set import TestSet, read_test_set
from pipeline.errors import RunError, SubmissionError
from pipeline.events import Listener, notes_into
from pipeline.files import is_marked_output, require_ours, write_marked_parquet, write_parquet
from pipeline.images.check import require_images
from pipeline.images.geometry import image_form
from pipeline.metrics.metric_spec import metric_name
from pipeline.metrics.registry import metric_input
from pipeline.run.folder import RunFolder
from pipeline.run.records import SubmissionRecord
from pipeline.run.submission.test_predictions import TestPredictions, predict_test, write_broken
from pipeline.run.submission.test_thresholds import FittedRule, choose_decision_rule, forecast_test
from pipeline.run.submission.timed_predictions import timed_predictions
from pipeline.run.trained_run import TrainedRun, require_same_labels
from pipeline.thresholds.cross_fitting import BEST_EPOCH_NOTE
from pipeline.thresholds.forecast import Forecast
from pipeline.thresholds.row_rules import row_rules


@dataclass(frozen=True)
class Submitted:
    """The facts of a written submission, for a person to read.

    Attributes:
        path: the submission.
        rows: its number of rows.
        images: how many images it is about.
        predictions: how many models times views were averaged for each image.
        cross_fitted: the cross-validated score, cross-fitted.
        in_sample: the same in-sample; it flatters.
        forecast: of the test score.
        metric: of both.
        positives: per label, the number of rows it was decided for.
        out_of_fold_rates: per label, the share of rows it was decided for out-of-fold.
        notes: one sentence each.
    """

    path: Path
    rows: int
    images: int
    predictions: int
    metric: str
    cross_fitted: float | None
    in_sample: float | None
    positives: Mapping[str, int]
    out_of_fold_rates: Mapping[str, float]
    forecast: Forecast
    notes: tuple[str, ...]


def submit(
    runs: Sequence[TrainedRun],
    *,
    views: Sequence[str] | None,
    out: Path | None,
    images: Path | None,
    sample: Path | None,
    on_image: Callable[[int, int], None] | None = None,
    fitted: FittedRule | None = None,
) -> Submitted:
    """Predict the test images with every fold of every run and write a submission in the format of the first run.

    Each run's folds and views are averaged by its `predict.average`; runs are averaged as probabilities. See
    `choose_decision_rule` for the decisions. With the first run's `predict.time_budget` the submission is written
    several times, see `timed_predictions`.

    Args:
        runs: at least one, all of the same labels, in any order.
        views: other views than the runs' own.
        out: where the submission goes; by default to its place in the first run's folder.
        images: a folder that replaces the one of the test images; the file names stay. Where it holds more images
            than the sample asks for, all of them are answered.
        sample: a sample submission that replaces the competition's.
        on_image: called with (images done, all images).
        fitted: the decision rule, where it was chosen before.

    Raises:
        PipelineError: runs do not fit together, test files are missing, the submission would be rejected.
    """
    first = runs[0]
    require_same_labels(runs)
    if out is not None and out.resolve() == first.folder.submission.resolve():
        out = None  # so that the files beside it belong to this submission, too
    path = first.folder.submission if out is None else out
    _require_writable(path)
    form = submission_form(first.config.submission, first.config.competition, first.labels)
    notes: list[str] = []
    test_set = _read_test_set(first, form, images=images, sample=sample, listen=notes_into(notes))
    check_sample(test_set.sample, form)
    if out is not None:
        _require_replaceable(out)
    if first.config.predict.broken == "error" and any(run.models for run in runs):
        require_images(test_set.table.paths, image_form(first.config.images), threads=joblib.cpu_count())
    rules = row_rules(first.config.submission, first.config.competition, first.labels)
    fitted = fitted or choose_decision_rule(runs, rules)
    notes += [*(note for run in runs for note in run.notes), *fitted.notes]
    notes += [f"{run.folder.path}: {BEST_EPOCH_NOTE}" for run in runs if run.config.train.select == "best"]
    if views is not None and list(views) != first.config.predict.tta:
        notes.append("thresholds were fitted on the run's own views, not on --tta; set predict.tta to fit both")
    timed = first.config.predict.time_budget is not None and any(run.models for run in runs)
    predict = timed_predictions if timed else predict_test
    for predicted in predict(runs, test_set.table, views=views, listen=notes_into(notes), on_image=on_image):
        decisions, of_files = _write(first, fitted, test_set, form, predicted, out)
    notes += [*predicted.notes, *of_files]
    expected = forecast_test(runs, fitted, predicted.probabilities)  # the submission is safe by now
    if out is None:
        _record(runs, fitted, expected).save(first.folder.submitted)
    return Submitted(
        path=path,
        rows=len(test_set.sample.ids),
        images=len(decisions),
        predictions=predicted.averaged,
        metric=metric_name(first.config.competition.metric),
        cross_fitted=fitted.cross_fitted,
        in_sample=fitted.in_sample,
        positives=dict(zip(first.labels, decisions.sum(axis=0).tolist(), strict=True)),
        out_of_fold_rates=fitted.rates,
        forecast=expected,
        notes=(*notes, *expected.notes),
    )


def _write(
    first: TrainedRun,
    fitted: FittedRule,
    test_set: TestSet,
    form: SubmissionFormat,
    predicted: TestPredictions,
    out: Path | None,
) -> tuple[NDArray[np.uint8], list[str]]:
    """Decide, validate, and write the submission with the files beside it; returns the decisions (N, K) and notes."""
    ids, path, notes = test_set.table.ids, out or first.folder.submission, list[str]()
    decisions = fitted.rule.decide(predicted.probabilities)
    calibrated = fitted.rule.calibrated(predicted.probabilities)
    frame = build_submission(test_set.sample, form, ids=ids, probabilities=calibrated, decisions=decisions)
    table = pd.DataFrame(predicted.probabilities, columns=list(first.labels))
    table.insert(0, "id", list(ids))
    if out is None:
        first.folder.submitted.unlink(missing_ok=True)  # of another submission
        _write_decided(first, ids, decisions=decisions, calibrated=calibrated)
        write_parquet(first.folder.test, table)
    else:
        write_marked_parquet(_probabilities_of(out), table, (path, _broken_of(path)), written=False)
    write_submission(path, frame, test_set.sample, form, notes_into(notes))
    notes += write_broken(_broken_of(path), ids, predicted.problems)
    if out is not None:
        together = [file for file in (path, _broken_of(path)) if file.exists()]
        write_marked_parquet(_probabilities_of(out), table, together, written=True)
    return decisions, notes


def _write_decided(
    first: TrainedRun, ids: Sequence[str], *, decisions: NDArray[np.uint8], calibrated: NDArray[np.float64]
) -> None:
    """Write what the first run's metric scores of each test row, decisions or probabilities, both (N, K)."""
    takes_decisions = metric_input(first.config.competition.metric, first.labels) == "decisions"
    table = pd.DataFrame(decisions if takes_decisions else calibrated, columns=list(first.labels))
    table.insert(0, "id", list(ids))
    write_parquet(first.folder.decided, table)


def _record(runs: Sequence[TrainedRun], fitted: FittedRule, expected: Forecast) -> SubmissionRecord:
    return SubmissionRecord(
        runs=tuple(str(run.folder.path) for run in runs),
        folds=tuple(run.folds for run in runs),
        labels=runs[0].labels,
        metric=metric_name(runs[0].config.competition.metric),
        cross_fitted=fitted.cross_fitted,
        in_sample=fitted.in_sample,
        map=fitted.map,
        notes=fitted.score_notes,
        forecast=None if math.isnan(expected.value) else (expected.value, expected.low, expected.high),
    )


def _require_writable(path: Path) -> None:
    """Raise SubmissionError where `path` cannot be written, before the long prediction."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SubmissionError(f"{path} cannot be written: {error}", remedy="give a writable --out FILE") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise SubmissionError(
            f"{path} cannot be written", expected="a file in a writable folder", remedy="give a writable --out FILE"
        )


def _require_replaceable(out: Path) -> None:
    """Refuse an `--out` in the folder of a run, or one that would replace a file of the user.

    A file may be replaced if it is unchanged since it was written together with its parquet file of probabilities.

    Raises:
        RunError: as said.
    """
    for folder in Path(os.path.realpath(out)).parents:
        if RunFolder(folder).is_marked():
            raise RunError(
                f"{out} lies in the folder of a run", remedy="give --out a place elsewhere, or leave --out away"
            )
    probabilities = _probabilities_of(out)
    for path in (out, probabilities, _broken_of(out)):
        require_ours(path, lambda path: is_marked_output(path, probabilities))


def _probabilities_of(out: Path) -> Path:
    return out.with_suffix(".parquet")


def _broken_of(path: Path) -> Path:
    return path.with_suffix(".broken.csv")


def _read_test_set(
    first: TrainedRun, form: SubmissionFormat, *, images: Path | None, sample: Path | None, listen: Listener
) -> TestSet:
    competition, submission = first.config.competition, first.config.submission
    if sample is not None:
        # another sample has other ids, so that the test CSV no longer fits; a template finds their images
        by_template = competition.images.template is not None
        changed = {"sample_submission": str(sample.absolute()), "test": None if by_template else competition.test}
        competition = competition.model_copy(update=changed)
        submission = submission.model_copy(update={"ids": "sample"})
    return read_test_set(competition, submission, form, images=images, train_ids=first.train_ids, listen=listen)
