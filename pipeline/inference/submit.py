"""From finished runs to a validated submission: all folds and views of all runs over each test image once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipeline.competition.sample import TestTable
from pipeline.competition.submission import (
    SubmissionFormat,
    build_submission,
    check_sample,
    row_rules,
    submission_form,
    write_submission,
)
from pipeline.competition.table import read_train
from pipeline.competition.test_set import TestSet, read_test_set
from pipeline.config import Config
from pipeline.device import loading_workers, memory_errors_told, pick_device, resolve_precision
from pipeline.errors import RunError, SubmissionError, listing
from pipeline.evaluation.decider import Decider
from pipeline.evaluation.honest import EPOCH_MARK, score_out_of_fold
from pipeline.evaluation.metric_spec import metric_name
from pipeline.evaluation.metrics import get_metric
from pipeline.evaluation.rules import RowRules
from pipeline.evaluation.transfer import rates
from pipeline.images.check import require_images
from pipeline.images.dataset import EvalImages, eval_loader
from pipeline.inference.broken import fill_in, mean_out_of_fold, noting_problems, write_broken
from pipeline.inference.deciding import read_decider
from pipeline.inference.ensemble import sigmoid
from pipeline.inference.out_of_fold import image_form
from pipeline.inference.predict import Ensemble, needed_forms, predict
from pipeline.inference.validated import join_validated
from pipeline.inference.views import parse_views
from pipeline.model.weights import load_model
from pipeline.runs import RunFolder, read_folds, read_json, write_parquet


@dataclass(frozen=True)
class FinishedRun:
    """A run whose folds are all done."""

    run: RunFolder
    config: Config
    labels: tuple[str, ...]
    folds: tuple[int, ...]
    train_ids: frozenset[str]


@dataclass(frozen=True)
class Submitted:
    """What was written, for a person to read.

    Attributes:
        path: the submission.
        rows: its number of rows.
        images: how many images it is about.
        members: how many models times views looked at each image.
        cross_fitted: the score to expect.
        in_sample: the score that flatters.
        metric: of both.
        positives: per label, how many rows it was decided for.
        out_of_fold_rates: per label, the share of rows it was decided for out-of-fold.
        notes: sentences on what a person should know.
    """

    path: Path
    rows: int
    images: int
    members: int
    metric: str
    cross_fitted: float | None
    in_sample: float | None
    positives: Mapping[str, int]
    out_of_fold_rates: Mapping[str, float]
    notes: tuple[str, ...]


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


def submit(
    runs: Sequence[FinishedRun],
    *,
    views: Sequence[str] | None,
    out: Path | None,
    images: Path | None,
    sample: Path | None,
    on_image: Callable[[int, int], None] | None = None,
) -> Submitted:
    """Predict the test images with every fold of every run and write the submission of the first run's form.

    Each run's folds and views are averaged as its `predict.average` says; runs are averaged as
    probabilities. One run decides by its own thresholds; several fit new ones on the mean of their
    out-of-fold probabilities, by the first run's policy.

    Args:
        runs: at least one, all of the same labels.
        views: other views than the runs' own.
        out: where the submission goes; by default into the first run's folder.
        images: a folder that replaces the one of the test images; the file names stay. Where it holds more images
            than the sample asks for, all of them are answered.
        sample: a sample submission that replaces the competition's.
        on_image: told (images done, all images).

    Raises:
        PipelineError: runs do not fit together, test files are missing, the submission would be rejected.
    """
    first = runs[0]
    _require_same_labels(runs)
    path = first.run.submission if out is None else out
    _require_writable(path)
    form = submission_form(first.config.submission, first.config.competition, first.labels)
    asked = _read_asked(first, form, images=images, sample=sample)
    test = asked.table
    check_sample(asked.sample, form)
    tolerant = first.config.predict.broken == "fallback"
    if not tolerant:
        require_images(test.paths, image_form(first.config.images), threads=os.cpu_count() or 1)
    rules = row_rules(first.config.submission, first.config.competition, first.labels)
    decider, scores, notes = _decider(runs, rules)
    notes = [*asked.notes, *notes]
    notes += [f"{run.run.path}: {EPOCH_MARK}" for run in runs if run.config.train.select == "best"]
    if views is not None and list(views) != first.config.predict.views:
        notes.append("thresholds were fitted on the run's own views, not on --views; set predict.views to fit both")
    device = pick_device()
    ensembles = [_load_ensemble(run, views, device=device) for run in runs]
    with memory_errors_told():
        per_run, problems = _predict_test(runs, ensembles, test, tolerant=tolerant, device=device, on_image=on_image)
    probabilities = np.mean([sigmoid(logits) for logits in per_run], axis=0)
    if problems:
        fallback = mean_out_of_fold([run.run.oof for run in runs], first.labels)
        probabilities = fill_in(probabilities, problems, fallback)
    decisions = decider.decide(probabilities)
    calibrated = decider.calibrated(probabilities)
    frame = build_submission(asked.sample, form, ids=test.ids, probabilities=calibrated, decisions=decisions)
    table = pd.DataFrame(probabilities, columns=list(first.labels))
    table.insert(0, "id", list(test.ids))
    write_parquet(first.run.test if out is None else out.with_suffix(".parquet"), table)
    notes += write_submission(path, frame, asked.sample, form)
    notes += write_broken(path.with_suffix(".broken.csv"), test.ids, problems)
    return Submitted(
        path=path,
        rows=len(frame),
        images=len(test.ids),
        members=sum(len(ensemble.models) * len(ensemble.views) for ensemble in ensembles),
        metric=metric_name(first.config.competition.metric),
        cross_fitted=scores["cross_fitted"],
        in_sample=scores["in_sample"],
        positives=dict(zip(first.labels, decisions.sum(axis=0).tolist(), strict=True)),
        out_of_fold_rates=scores["rates"],
        notes=tuple(notes),
    )


def _require_writable(path: Path) -> None:
    """Raise SubmissionError now rather than after the prediction, where `path` cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SubmissionError(f"{path} cannot be written: {error}", remedy="give a writable --out FILE") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise SubmissionError(
            f"{path} cannot be written", expected="a file in a writable folder", remedy="give a writable --out FILE"
        )


def _require_same_labels(runs: Sequence[FinishedRun]) -> None:
    for other in runs[1:]:
        if other.labels != runs[0].labels:
            raise RunError(
                f"{other.run.path} and {runs[0].run.path} predict different labels",
                expected=listing(runs[0].labels, 12),
                got=listing(other.labels, 12),
                remedy="average only runs of the same competition",
            )


def _read_asked(first: FinishedRun, form: SubmissionFormat, *, images: Path | None, sample: Path | None) -> TestSet:
    competition, submission = first.config.competition, first.config.submission
    if sample is not None:
        # with another sample its own ids are asked for, wherever the images can be found by a template
        by_template = competition.images.template is not None
        changed = {"sample_submission": str(sample.absolute()), "test": None if by_template else competition.test}
        competition = competition.model_copy(update=changed)
        submission = submission.model_copy(update={"ids": "sample"})
    return read_test_set(competition, submission, form, images=images, train_ids=first.train_ids)


def _decider(runs: Sequence[FinishedRun], rules: RowRules) -> tuple[Decider, dict[str, Any], list[str]]:
    """What to decide by, its scores and out-of-fold rates, and what to say about them."""
    first = runs[0]
    if len(runs) == 1:
        return read_decider(first.run, first.config, first.labels, rules), read_json(first.run.thresholds), []
    labels = list(first.labels)
    metric = get_metric(first.config.competition.metric, labels)
    rows = join_validated([run.run for run in runs], read_train(first.config.competition), labels)
    probabilities = np.mean([rows.probabilities(place) for place in range(len(runs))], axis=0)
    parts, notes = rows.parts(0, first.config)
    if any((table["fold"] != rows.tables[0]["fold"]).any() for table in rows.tables[1:]):
        notes.append("the runs have different folds: the cross-fitted score of their mean may flatter a little")
    settings = first.config.thresholds
    honest = score_out_of_fold(
        metric,
        rows.targets,
        probabilities,
        parts,
        policy=settings.policy,
        rules=rules,
        calibration=settings.calibration,
        groups=rows.group_numbers,
        resamples=0,
    )
    decided = rates(honest.cross_fitted_decisions, ~np.isnan(rows.targets))
    facts = {
        "in_sample": honest.in_sample.pooled.value,
        "cross_fitted": honest.cross_fitted.pooled.value,
        "rates": dict(zip(labels, decided.tolist(), strict=True)),
    }
    decider = Decider(honest.calibration, honest.thresholds, probabilities, honest.policy, settings.transfer, rules)
    return decider, facts, notes


def _load_ensemble(run: FinishedRun, views: Sequence[str] | None, *, device: torch.device) -> Ensemble:
    trained = [load_model(run.run.fold(fold).weights, device=device) for fold in run.folds]
    wrong = [fold for fold, model in zip(run.folds, trained, strict=True) if model.labels != run.labels]
    if wrong:
        raise RunError(
            f"{run.run.path}: the weights of fold {wrong[0]} are for other labels than the run's thresholds",
            remedy="the run folder was changed by hand: start it with --fresh",
        )
    return Ensemble(
        models=[model.model for model in trained],
        normalizer=trained[0].normalizer,
        views=parse_views(views or run.config.predict.views, size=run.config.images.height_width),
        form=image_form(run.config.images),
        average=run.config.predict.average,
    )


def _predict_test(
    runs: Sequence[FinishedRun],
    ensembles: Sequence[Ensemble],
    test: TestTable,
    *,
    tolerant: bool,
    device: torch.device,
    on_image: Callable[[int, int], None] | None,
) -> tuple[list[NDArray[np.float64]], dict[int, str]]:
    """The logits (N, K) of each run, and by row what is wrong with images that cannot be read."""
    config = runs[0].config
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        if on_image is not None:
            on_image(done, len(test.ids))

    workers = config.train.workers if config.train.workers != "auto" else loading_workers(device)
    loader = eval_loader(
        EvalImages(test.paths, forms=needed_forms(ensembles), tolerant=tolerant),
        range(len(test.ids)),
        batch_size=config.predict.batch_size or config.train.batch_size,
        workers=workers,
        pin_memory=device.type == "cuda",
    )
    precision = resolve_precision(config.train.precision, device)
    problems: dict[int, str] = {}
    batches = noting_problems(loader, problems)
    return predict(ensembles, batches, device=device, precision=precision, on_batch=count), problems
