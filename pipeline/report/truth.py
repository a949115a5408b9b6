"""Scores the submission of a run against the true answers: `python -m pipeline truth RUN CSV`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rich.console import Console

from pipeline.competition.labels import read_labels
from pipeline.competition.table import truths_of
from pipeline.config import CompetitionConfig
from pipeline.errors import RunError, listing
from pipeline.events import ignore
from pipeline.files import read_predictions
from pipeline.metrics.registry import get_metric
from pipeline.run.folder import RunFolder
from pipeline.run.records import SubmissionRecord, Thresholds


def true_score(run: RunFolder, truth: Path) -> dict[str, float]:
    """The metric of what was submitted, and the mAP of the probabilities behind it.

    Both come from the files that were written with the submission, by this run alone or with others, even if the run
    has continued since.

    Args:
        run: a run with a submission.
        truth: a CSV with the ids and the labels in the encoding of the training table.

    Raises:
        RunError: the run has no submission, or one for another metric, or the truth is of other ids.
        CompetitionError: the truth cannot be read.
    """
    config, record = run.read_config(), read_record(run)
    labels = record.labels
    metric = get_metric(config.competition.metric, labels)
    if metric.name != record.metric:
        raise RunError(
            f"{run.submission} was written for {record.metric}, and the run's metric is {metric.name} now",
            remedy=f"write it again with python make_submission.py {run.path}",
        )
    judged, predicted = (read_predictions(path, list(labels)) for path in (run.decided, run.test))
    ids, targets = read_truth(config.competition, truth, labels)
    if set(ids) != set(predicted.index):
        raise RunError(
            f"{truth} and {run.test} do not hold the same ids",
            got=f"{len(ids)} ids in the truth, {len(predicted)} in the run",
            remedy="give the answers of this competition's test set",
        )
    values, probabilities = (table.loc[ids, list(labels)].to_numpy() for table in (judged, predicted))
    return {
        metric.name: metric.function(targets, values).value,
        "map": get_metric("map").function(targets, probabilities).value,
    }


def read_record(run: RunFolder) -> SubmissionRecord:
    """The record of the run's submission. Raises RunError where it is missing."""
    if not run.submitted.exists():
        raise RunError(
            f"{run.path} holds no submission, or half of one, or one that is older than {run.submitted.name}",
            remedy=f"write it with python make_submission.py {run.path}",
        )
    return SubmissionRecord.load(run.submitted)


def read_truth(competition: CompetitionConfig, path: Path, labels: Sequence[str]) -> tuple[list[str], NDArray[Any]]:
    """The ids and truths (N, K) of a table in the training table's encoding, as `truths_of` gives them.

    Raises:
        CompetitionError: it cannot be read in this encoding, or has other labels.
    """
    rows = read_labels(competition, path, key="the truth file", listen=ignore, known=tuple(labels))
    return rows.frame[competition.id].tolist(), truths_of(rows.targets)


def print_truth(console: Console, run: RunFolder, truth: Path) -> None:
    """Print the true scores beside the cross-validated ones."""
    found = true_score(run, truth)
    promised = read_record(run)
    name = promised.metric
    notes = "".join(f"; {note}" for note in [*promised.notes, *_since(run, promised)])
    console.print(
        f"true test {name} {found[name]:.4f} (cross-validation said {_number(promised.cross_fitted)} "
        f"cross-fitted, {_number(promised.in_sample)} in-sample); "
        f"true test mAP {found['map']:.4f} (said {_number(promised.map)}){notes}",
    )


def _since(run: RunFolder, record: SubmissionRecord) -> list[str]:
    """A note if the run is scored on other folds than the submission."""
    if not run.thresholds.exists() or Thresholds.load(run.thresholds).folds == record.folds[0]:
        return []
    return [f"the run is scored on other folds: this is the submission of folds {listing(record.folds[0])}"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
