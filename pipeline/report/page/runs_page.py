"""The page of several runs: a comparison of those that are named, or an index of a folder of runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.errors import PipelineError, RunError
from pipeline.metrics.metric_spec import metric_name
from pipeline.report.compare import compare
from pipeline.report.curves import read_epochs
from pipeline.report.page.tables import Cells, Link, key_table
from pipeline.run.folder import RunFolder
from pipeline.run.records import Scores
from pipeline.run.trained_run import refuse_repeats

_INDEX = ("run", "metric", "score", "from", "to (95 %)", "mAP", "backbone", "head", "epochs", "minutes", "notes")
_MOST_LABELS = 1_000


@dataclass
class RunsPage:
    """The content of the page; an index has only its leaderboard."""

    name: str
    board: Cells
    differences: Cells | None = None
    labels: Cells | None = None
    settings: Cells | None = None
    notes: Sequence[str] = ()


def compare_runs(runs: Sequence[RunFolder], out: Path) -> RunsPage:
    """The runs beside each other, each one's difference to the first, and what differs per label and in the configs.

    Raises:
        RunError: a run is not scored, or given twice.
    """
    names = [run.path.name for run in runs]
    if len({*names}) < len(names):
        names = [str(run.path) for run in runs]
    configs = [run.read_config() for run in runs]
    scores = [Scores.load(run.scores) for run in runs]
    refuse_repeats([run.path for run in runs])
    rows, notes = [], []
    for name, run in zip(names[1:], runs[1:], strict=True):
        try:
            found = compare(runs[0], run)
            rows.append((name, found.difference, *found.spread, found.better, found.rows))
        except PipelineError as error:
            notes.append(f"{name} is not compared: {error.problem}.")
    shared = [label for label in scores[0].labels if all(label in each.labels for each in scores)]
    per_label = list[tuple[Any, ...]]()
    for label in shared[:_MOST_LABELS]:
        areas = [each.labels[label].average_precision for each in scores]
        known = [area for area in areas if area is not None]
        spread = max(known) - min(known) if known else None
        per_label.append((label, scores[0].labels[label].positives, *areas, spread))
    per_label.sort(key=lambda row: row[-1] or 0.0, reverse=True)
    return RunsPage(
        name=", ".join(names),
        board=_board(runs, names, out),
        differences=Cells(
            (f"minus {names[0]}", "difference", "from", "to (95 %)", "share of resamples that are better", "rows"), rows
        ),
        labels=Cells(("label", "positives", *(f"AP {name}" for name in names), "largest difference"), per_label),
        settings=key_table(configs[0], dict(zip(names[1:], configs[1:], strict=True)), first=names[0]),
        notes=notes,
    )


def index_runs(folder: Path, out: Path) -> RunsPage:
    """All runs directly in `folder`, the best of each metric first. Raises RunError where there are none."""
    runs = [RunFolder.at(path) for path in sorted(folder.iterdir()) if RunFolder(path).config.is_file()]
    if not runs:
        raise RunError(
            f"{folder} holds no run", expected="a run folder, or a folder of them", remedy="give runs/ or runs/demo"
        )
    return RunsPage(folder.resolve().name, _board(runs, [run.path.name for run in runs], out))


def _board(runs: Sequence[RunFolder], names: Sequence[str], out: Path) -> Cells:
    rows = [_row(run, name, out) for run, name in zip(runs, names, strict=True)]
    rows.sort(key=lambda row: (row[0], row[1]))
    return Cells(_INDEX, [row[2] for row in rows])


def _row(run: RunFolder, name: str, out: Path) -> tuple[str, float, tuple[object, ...]]:
    """A row of the leaderboard, after its metric and a number that is smaller for a better score."""
    linked = Link(name, quote(os.path.relpath(run.report, out.parent))) if run.report.exists() else name
    nothing = (None,) * (len(_INDEX) - 2)
    try:
        config = run.read_config()
        metric, model, epochs = metric_name(config.competition.metric), config.model, config.train.epochs
        trained = (None, None, None) if run.blended.exists() else (model.backbone, model.head, epochs)
        if not run.scores.exists():
            return metric, 2.0, (linked, metric, *nothing[:-5], *trained, None, "not scored")
        scores = Scores.load(run.scores)
    except PipelineError as error:
        return "~", 0.0, (linked, None, *nothing[:-1], error.problem)
    score = scores.cross_fitted
    rank = 1.5 if score.pooled is None else -score.pooled if scores.greater_is_better else score.pooled
    figures = (score.pooled, *score.interval, scores.threshold_free.map)
    return metric, rank, (linked, metric, *figures, *trained, _minutes(run), "; ".join(scores.notes))


def _minutes(run: RunFolder) -> int | None:
    """Minutes of training over all models; None where they are not known."""
    try:
        trainings = read_epochs(run)
    except RunError:
        return None
    seconds = sum(float(record.get("seconds", 0.0)) for records in trainings.values() for record in records)
    return round(seconds / 60)
