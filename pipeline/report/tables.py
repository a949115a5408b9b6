"""Tables of a run for the terminal: folds, scores, the submission."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.table import Table

from pipeline.competition.folds import FoldTable, fold_table, folds_mark
from pipeline.competition.folds.rows import FULL_FIT
from pipeline.config import unused_keys
from pipeline.console import number, print_marked, print_note
from pipeline.errors import PipelineError
from pipeline.run.folder import RunFolder
from pipeline.run.records import Scores
from pipeline.run.submission.submit import Submitted
from pipeline.run.trained_run import about_lacking_models
from pipeline.thresholds.cross_fitting import BEST_EPOCH_NOTE

if TYPE_CHECKING:
    from pipeline.run.plan import Plan  # imports what only training needs

T = TypeVar("T")

_MOST_LABELS = 20  # at each end of a table
_MOST_WARNINGS = 20


def print_fold_table(console: Console, table: FoldTable) -> None:
    """Print positives per label and fold, the deviation from even folds, and a warning per label that misses a fold."""
    count = len(table.sizes)
    drawn = Table(title="Folds: positives per label", title_justify="left")
    drawn.add_column("label")
    for fold in range(count):
        drawn.add_column(f"fold {fold}", justify="right")
    drawn.add_column("deviation", justify="right")
    rows = list(zip(table.labels, table.positives, table.label_deviations, strict=True))
    for label, positives, deviation in _shown(rows, lambda row: int(row[1].sum())):
        drawn.add_row(label, *map(str, positives), _percent(deviation))
    drawn.caption = _left_out(rows, "the rarest and the most frequent ones; all in folds.csv")
    drawn.add_section()
    drawn.add_row("rows", *map(str, table.sizes), _percent(table.size_deviation))
    console.print(drawn)
    if table.always_train:
        console.print(f"{table.always_train} rows always train (fold -1)")
    warnings = table.warnings()
    for warning in warnings[:_MOST_WARNINGS]:
        print_marked(console, "warning:", "yellow", warning)
    if len(warnings) > _MOST_WARNINGS:
        print_marked(console, "warning:", "yellow", f"and {len(warnings) - _MOST_WARNINGS} more labels miss a fold")


def print_scores(console: Console, scores: Scores) -> None:
    """Print the table per label, then the pooled scores, marked as in-sample or cross-fitted."""
    console.print(_label_table(scores))
    console.print(_score_table(scores))
    free = scores.threshold_free
    mark = f" ({'; '.join(_marks(scores))})" if _marks(scores) else ""
    console.print(
        f"out-of-fold mAP{mark}: {number(free.map)}   "
        f"a constant score per label would give {number(free.prevalence_map)}   "
        f"macro AUC{mark}: {number(free.auc_macro)}"
    )
    further = [
        f"{name} {number(score.cross_fitted)}"
        + ("" if score.at_half is None else f" (at 0.5: {number(score.at_half)})")
        for name, score in scores.further.items()
    ]
    if further:
        console.print("cross-fitted, and at threshold 0.5: " + "   ".join(further))
    for note in scores.notes:
        print_note(console, note)


def print_guess(console: Console, path: Path, problem: PipelineError | None) -> None:
    """Print where a new config is, whether it can be run, and the next step."""
    console.print(f"{path} is written; look at each line")
    if problem is None:
        tried = "the table, an image and a row of a submission were tried"
        console.print(f"ready ({tried}); then: python run_cv.py {path} --debug")
    else:
        console.print(f"not ready: {problem}")


def print_validated(console: Console, file: Path) -> None:
    """Print that a file is a valid submission."""
    console.print(f"{file!s}: valid", soft_wrap=True)


def print_submitted(console: Console, written: Submitted) -> None:
    """Print how often each label is predicted, the path of the submission, and the expected score."""
    drawn = Table(title="Test rows each label is predicted for", title_justify="left")
    drawn.add_column("label")
    drawn.add_column("rows", justify="right")
    drawn.add_column("share", justify="right")
    drawn.add_column("out-of-fold share", justify="right")
    rows = list(written.positives.items())
    for label, count in _shown(rows, lambda row: row[1]):
        drawn.add_row(label, str(count), _percent(count / written.images), _percent(written.out_of_fold_rates[label]))
    drawn.caption = _left_out(rows, "the rarest and the most frequent ones")
    console.print(drawn)
    averaged = f"; {written.predictions} predictions averaged per image" if written.predictions > 1 else ""
    console.print(f"{written.path}: {written.rows} rows, valid{averaged}", markup=False)
    console.print(
        f"cross-validated {written.metric}: {number(written.cross_fitted)} (cross-fitted; "
        f"in-sample {number(written.in_sample)})",
    )
    test = written.forecast
    if not math.isnan(test.value):
        interval = f"95 % interval {number(test.low)} to {number(test.high)}"
        console.print(f"forecast for the test: {number(test.value)} ({interval})")
    for note in written.notes:
        print_note(console, note)


def _marks(scores: Scores) -> list[str]:
    """The marks that each score of the run must carry."""
    some = folds_mark(scores.folds, scores.of_folds)
    return [*([BEST_EPOCH_NOTE] if BEST_EPOCH_NOTE in scores.notes else []), *([some] if some else [])]


def _label_table(scores: Scores) -> Table:
    mark = "".join(f"; {mark}" for mark in _marks(scores))
    title = f"Out-of-fold figures per label (decisions cross-fitted; thresholds fitted on all rows{mark})"
    drawn = Table(title=title, title_justify="left")
    drawn.add_column("label")
    for name in ("positives", "AP", "AUC", "threshold", "precision", "recall", "F1"):
        drawn.add_column(name, justify="right")
    rows = list(scores.labels.items())
    for label, row in _shown(rows, lambda item: item[1].average_precision or 0.0):
        figures = [row.average_precision, row.auc, row.threshold, row.precision, row.recall, row.f1]
        drawn.add_row(label, str(row.positives), *map(number, figures))
    drawn.caption = _left_out(rows, "those of the lowest and the highest AP; all in scores.json")
    return drawn


def _shown(rows: Sequence[T], value: Callable[[T], float]) -> list[T]:
    """All rows in their order; of many, those of the lowest and of the highest values, ascending."""
    if len(rows) <= 2 * _MOST_LABELS:
        return list(rows)
    ranked = sorted(rows, key=value)
    return [*ranked[:_MOST_LABELS], *ranked[-_MOST_LABELS:]]


def _left_out(rows: Sequence[object], shown: str) -> str | None:
    """A caption for a table that `_shown` has cut."""
    return f"{2 * _MOST_LABELS} of {len(rows)} labels: {shown}" if len(rows) > 2 * _MOST_LABELS else None


def _score_table(scores: Scores) -> Table:
    mark = "".join(f", {mark}" for mark in _marks(scores))
    judged = "of the decisions to be submitted" if scores.fitted else "(no threshold was fitted)"
    drawn = Table(title=f"{scores.metric} {judged}{mark}", title_justify="left")
    drawn.add_column("thresholds")
    drawn.add_column("pooled", justify="right", style="bold")
    drawn.add_column("95 % interval", justify="right")
    drawn.add_column(f"mean of {scores.part}s", justify="right")
    drawn.add_column(f"{scores.part}s", justify="right")
    rows = [(scores.cross_fitted, "cross-fitted (believe this one)"), (scores.in_sample, "in-sample (flatters)")]
    for row, name in rows if scores.fitted else [(scores.cross_fitted, "out-of-fold")]:
        folds = "  ".join(map(number, row.folds))
        drawn.add_row(name, number(row.pooled), _interval(row.interval), number(row.mean), folds)
    return drawn


def _interval(ends: Sequence[float | None]) -> str:
    return " to ".join(map(number, ends))


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"


def print_plan(console: Console, plan: Plan, run: RunFolder) -> None:
    """Print the size of the data, the run folder, the folds, and the keys that have no effect."""
    console.print(f"{len(plan.table.ids)} images, {len(plan.table.labels)} labels; the run goes to {run.path}")
    print_fold_table(console, fold_table(plan.folds, plan.table.positives, plan.table.labels))
    for note in unused_keys(plan.config):
        print_note(console, note)


def print_outcome(console: Console, plan: Plan, run: RunFolder, scores: Scores | None) -> None:
    """Print the scores of the finished folds, if there are any, and the next step."""
    unfinished = scores is None or not scores.complete
    lacks_full_fit = plan.config.train.full_fit and not run.fold(FULL_FIT).is_trained(plan.config.train)
    if (unfinished or lacks_full_fit) and time.monotonic() > plan.deadline:
        console.print(f"train.time_budget={plan.config.train.time_budget} is used; all is saved")
    if scores is None:
        lacking = None if run.finished_folds(plan.config.train) else about_lacking_models(run, plan.config)
        if lacking is not None:
            seeds = plan.config.train.seeds
            console.print(f"no fold has a model for each of train.seeds={seeds}: {lacking}")
        else:
            console.print("scores follow when more is finished: run it again without --folds, and without --fresh")
        return
    print_scores(console, scores)
    if unfinished:
        console.print("the same command without --folds and without --fresh goes on with the other folds")
    if lacks_full_fit:
        console.print("the full fit is not finished: the same command without --folds goes on with it after the folds")
    console.print(f"next: python make_submission.py {run.path}", markup=False)
