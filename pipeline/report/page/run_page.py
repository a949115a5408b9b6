"""Everything that the page of one run shows, read from its folder and, where it is at hand, the training table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.competition.table import TrainTable, read_train
from pipeline.config import Config
from pipeline.errors import PipelineError, RunError
from pipeline.events import ignore
from pipeline.files import read_json, read_predictions
from pipeline.metrics.registry import metric_input
from pipeline.metrics.targets import Floats, Ints, blocks
from pipeline.report.curves import read_epochs
from pipeline.report.page.label_figures import MOST_SUSPECTS, Cell, LabelFigures, label_figures
from pipeline.report.page.tables import Cells, flat_table, key_table, score_table
from pipeline.run.folder import RunFolder
from pipeline.run.records import BlendRecord, Scores, SubmissionRecord
from pipeline.run.submission.test_thresholds import read_calibration
from pipeline.run.trained_run import TrainedRun, open_run
from pipeline.thresholds.calibration import fit_platt

if TYPE_CHECKING:
    from pipeline.report.page.pictures import Pictures

_BLOCK_LABELS = 50  # that are read at once
_GALLERY, _PER_LABEL = 160, 4  # cells in the gallery, and of one kind and label
_PICTURED_SUSPECTS = 100
_TOGETHER = 20  # labels in the co-occurrence
_SHOWN_PROBABILITIES = 6
_EPOCH_POINTS = 200
_PLATT_ROWS = 20_000  # are enough for two numbers per label


@dataclass
class RunPage:
    """The content of the page; `data` is the JSON that the page's script draws."""

    name: str
    config: Config
    scores: Scores
    submitted: SubmissionRecord | None
    blend: BlendRecord | None
    score: Cells
    labels: Cells
    rates: Cells | None
    settings: Cells
    environment: Cells
    findings: Sequence[dict[str, Any]] | None
    policy: str
    notes: list[str]
    data: dict[str, Any]


@dataclass(frozen=True)
class _Validated:
    """The N validated rows; `rows` are their places in the training table."""

    ids: Sequence[str]
    folds: Ints
    table: TrainTable
    rows: Ints


def read_run(folder: RunFolder) -> RunPage:
    """The content of a run's page. Raises RunError where the run is not scored."""
    run = open_run(folder)
    scores = Scores.load(folder.scores)
    submitted = SubmissionRecord.load(folder.submitted) if folder.submitted.exists() else None
    rates = _submission_rates(run, submitted)
    notes: list[str] = []
    try:
        validated: _Validated | None = _validated(run)
    except PipelineError as error:
        validated = None
        notes.append(f"Curves, pictures and suspected errors need the training table: {error.problem}.")
    figures: list[LabelFigures | None] = [None] * len(run.labels)
    data: dict[str, Any] = {"curves": [], "gallery": [], "suspects": [], "images": {}, "together": None}
    means: dict[str, float] = dict(run.thresholds.rates)
    if validated is not None:
        figures, cells, data["together"], probable = _read_labels(run, validated, scores)
        if metric_input(run.config.competition.metric, run.labels) == "probabilities":
            means = probable
        gallery, suspects = _chosen(cells, scores, run.labels)
        notes += _add_cells(data, run, validated, gallery, suspects)
        data["curves"] = [figure._asdict() for figure in figures if figure is not None]
    data |= {"labels": run.labels, "epochs": _epochs(folder), "thresholds": list(run.thresholds.values.values())}
    competition = run.config.competition
    delimiter = "," if competition.delimiter == "auto" else competition.delimiter
    data["csv"] = {"id": competition.id, "delimiter": delimiter}
    wanted = [(name, means[name], rates[name]) for name in run.labels] if rates else []
    wanted.sort(key=lambda row: -abs(row[1] - row[2]))
    return RunPage(
        name=folder.path.name,
        config=run.config,
        scores=scores,
        submitted=submitted,
        blend=None if run.models else BlendRecord.load(folder.blend),
        score=score_table(scores, submitted),
        labels=_label_table(run, scores, figures),
        rates=Cells(("label", "out-of-fold", "submission"), wanted) if wanted else None,
        settings=key_table(Config(), {"this run": run.config}, first="base.yaml"),
        environment=Cells(("", "value"), flat_table(read_json(folder.environment)))
        if folder.environment.exists()
        else Cells((), ()),
        findings=read_json(folder.audit)["findings"] if folder.audit.exists() else None,
        policy=run.thresholds.chosen,
        notes=[*scores.notes, *run.notes, *notes],
        data=data,
    )


def _validated(run: TrainedRun) -> _Validated:
    """The validated rows, joined with the training table by id. Raises PipelineError where it does not fit."""
    oof = read_predictions(run.folder.oof, ["fold"])
    table = read_train(run.config.competition, ignore)
    place = {id_: row for row, id_ in enumerate(table.ids)}
    if {*table.labels} != {*run.labels} or not {*oof.index} <= place.keys():
        raise RunError("it holds other rows or labels now than the run was trained on", remedy="restore it")
    rows = np.array([place[id_] for id_ in oof.index])
    return _Validated(list(oof.index), oof["fold"].to_numpy(dtype=np.int64), table, rows)


def _probabilities(run: TrainedRun) -> Iterator[tuple[slice, Floats]]:
    """Blocks of labels with their probabilities (N, B), calibrated if the run is."""
    labels = list(run.labels)
    for block in blocks(len(labels), _BLOCK_LABELS):
        table = read_predictions(run.folder.oof, labels[block])[labels[block]].to_numpy(dtype=np.float64)
        calibration = read_calibration(run.thresholds, labels[block])
        yield block, table if calibration is None else calibration.apply(table)


def _read_labels(
    run: TrainedRun, validated: _Validated, scores: Scores
) -> tuple[list[LabelFigures | None], list[Cell], dict[str, Any], dict[str, float]]:
    """The figures of all labels, the cells to choose from, the co-occurrence, and the mean probabilities."""
    labels, figures, cells = run.labels, list[LabelFigures | None](), list[Cell]()
    shown = max(1, min(_PER_LABEL, _GALLERY // (2 * len(labels))))
    frequent = sorted(labels, key=lambda name: -scores.labels[name].positives)[:_TOGETHER]
    both = np.zeros((2, len(validated.ids), len(frequent)), np.float32)
    means: dict[str, float] = {}
    for block, table in _probabilities(run):
        columns = np.array([validated.table.labels.index(name) for name in labels[block]])
        truths = validated.table.truths[np.ix_(validated.rows, columns)]
        some_rows = slice(None, None, -(-len(truths) // _PLATT_ROWS))
        calibrated = fit_platt(truths[some_rows], table[some_rows]).apply(table)
        for place, name in enumerate(labels[block], start=block.start):
            truth, probabilities = truths[:, place - block.start], table[:, place - block.start]
            known = np.flatnonzero(~np.isnan(truth))
            threshold, of_label = run.thresholds.values[name], calibrated[known, place - block.start]
            bits = truth[known].astype(np.uint8)
            found, some = label_figures(
                place, known, bits, probabilities[known], of_label, threshold=threshold, shown=shown
            )
            figures.append(found)
            cells += some
            means[name] = float(probabilities.mean())
            if name in frequent:
                both[0, :, frequent.index(name)] = np.nan_to_num(truth)
                both[1, :, frequent.index(name)] = probabilities >= threshold
    together = {"labels": frequent, "true": _shares(both[0]), "predicted": _shares(both[1])}
    return figures, cells, together, means


def _shares(bits: NDArray[np.float32]) -> list[list[float]]:
    """(K, K) of the rows with the label of the row, the share that also has that of the column."""
    counts = bits.T @ bits
    shares: list[list[float]] = (counts / np.maximum(np.diag(counts)[:, None], 1.0)).round(3).tolist()
    return shares


def _chosen(cells: Sequence[Cell], scores: Scores, labels: Sequence[str]) -> tuple[list[Cell], list[Cell]]:
    """The cells of the gallery, of many labels those with the lowest AP; and the most suspicious cells."""
    suspects = sorted((cell for cell in cells if cell.kind == "suspect"), key=lambda cell: cell.self_confidence)
    precision = [scores.labels[name].average_precision for name in labels]
    worst = sorted(range(len(labels)), key=lambda place: 2.0 if (value := precision[place]) is None else value)
    kept = {*worst[: _GALLERY // 2]}
    return [cell for cell in cells if cell.kind != "suspect" and cell.label in kept], suspects[:MOST_SUSPECTS]


def _add_cells(
    data: dict[str, Any], run: TrainedRun, validated: _Validated, gallery: Sequence[Cell], suspects: Sequence[Cell]
) -> list[str]:
    """Put the cells and their images into `data`; returns sentences on what is left out."""
    from pipeline.report.page.pictures import read_pictures  # torch: 0.65 GB beside a large table while it is read

    shown = [*suspects[:_PICTURED_SUSPECTS], *gallery]
    rows = sorted({cell.row for cell in shown})
    wanted: dict[int, list[str]] = {}
    alike = [list(cells) for _, cells in groupby(gallery, key=lambda cell: (cell.label, cell.kind))]
    firsts = chain(*zip_longest(*alike))  # the first of each label and kind come first: not all get their attention
    for cell in (*filter(None, firsts), *suspects):
        wanted.setdefault(cell.row, []).append(run.labels[cell.label])
    paths = {row: validated.table.paths[validated.rows[row]] for row in rows}
    found = read_pictures(run, paths, {row: int(validated.folds[row]) for row in rows}, wanted)
    data["images"] = _images(run, validated, rows, found)
    for key, cells in (("gallery", gallery), ("suspects", suspects)):
        data[key] = [
            {
                **cell._asdict(),
                "id": validated.ids[cell.row],
                "fold": int(validated.folds[cell.row]),
                "probability": round(cell.probability, 4),
                "attention": found.attention.get((cell.row, run.labels[cell.label])),
            }
            for cell in cells
        ]
    return found.notes


def _images(run: TrainedRun, validated: _Validated, rows: Sequence[int], found: Pictures) -> dict[int, Any]:
    """Per row its picture, and its most probable and its given labels (label, probability, target), at most six."""
    tables = [(block, table[rows]) for block, table in _probabilities(run)] if rows else []
    columns = [validated.table.labels.index(name) for name in run.labels]
    images = {}
    for place, row in enumerate(rows):
        values = np.concatenate([table[place] for _, table in tables])
        truth = validated.table.truths[validated.rows[row]][columns].astype(np.float64)
        order = np.argsort(-(values + (truth == 1)), kind="stable")[:_SHOWN_PROBABILITIES]
        kept = [
            (int(k), round(float(values[k]), 3), None if np.isnan(truth[k]) else int(truth[k]))
            for k in sorted(order, key=lambda k: -values[k])
        ]
        images[row] = {"source": found.images.get(row), "labels": kept}
    return images


def _label_table(run: TrainedRun, scores: Scores, figures: Sequence[LabelFigures | None]) -> Cells:
    columns = ("label", "positives", "AP", "AUC", "threshold", "precision", "recall", "F1", "calibration error")
    rows = []
    for name, found in zip(run.labels, figures, strict=True):
        of = scores.labels[name]
        values = of.average_precision, of.auc, of.threshold, of.precision, of.recall, of.f1
        own = (None, None) if found is None else (found.calibration_error, found.suspects)
        rows.append((name, of.positives, *values, *own))
    return Cells((*columns, "suspected errors"), rows)


def _submission_rates(run: TrainedRun, submitted: SubmissionRecord | None) -> dict[str, float]:
    """Per label the mean of what was submitted, decisions or probabilities; empty before a submission."""
    rates: dict[str, float] = {}
    for block in blocks(len(run.labels), _BLOCK_LABELS) if submitted is not None else ():
        means = read_predictions(run.folder.decided, list(run.labels[block])).mean()
        rates |= {str(name): float(value) for name, value in means.items()}
    return rates


def _epochs(folder: RunFolder) -> dict[str, list[dict[str, Any]]]:
    """The epoch records of each training, at most 200 points each."""
    try:
        return {
            name: [dict(one) for one in records[:: -(-len(records) // _EPOCH_POINTS)]]
            for name, records in read_epochs(folder).items()
        }
    except RunError:  # trained elsewhere, and copied without them
        return {}
