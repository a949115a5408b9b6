"""What the terminal shows of a run: fold table, score tables, what was written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline import processes
from pipeline.competition.folds import FoldTable, folds_mark
from pipeline.run.submission.submit import Submitted
from pipeline.thresholds.cross_fitting import EPOCH_MARK

WIDTH = 110  # of tables where the output is no terminal, such as a log file


def make_console() -> Console:
    """A console that keeps tables whole in log files, too; of several processes only the first one's speaks."""
    quiet = not processes.is_first()
    console = Console(highlight=False, quiet=quiet)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH, quiet=quiet)


def print_note(console: Console, note: str) -> None:
    """One sentence that a person should read; names in it may hold brackets."""
    console.print(f"[yellow]note:[/] {escape(note)}")


def print_fold_table(console: Console, table: FoldTable) -> None:
    """Positives per label and fold, the deviation from even folds, and a warning per label that misses one."""
    count = len(table.sizes)
    drawn = Table(title="Folds: positives per label", title_justify="left")
    drawn.add_column("label")
    for fold in range(count):
        drawn.add_column(f"fold {fold}", justify="right")
    drawn.add_column("deviation", justify="right")
    for label, positives, deviation in zip(table.labels, table.positives, table.label_deviations, strict=True):
        drawn.add_row(escape(label), *map(str, positives), _percent(deviation))
    drawn.add_section()
    drawn.add_row("rows", *map(str, table.sizes), _percent(table.size_deviation))
    console.print(drawn)
    if table.always_train:
        console.print(f"{table.always_train} rows always train (fold -1)")
    for warning in table.warnings():
        console.print(f"[yellow]warning:[/] {escape(warning)}")


def print_scores(console: Console, scores: Mapping[str, Any]) -> None:
    """The per-label table, then the pooled scores, in-sample and cross-fitted, each marked as such."""
    console.print(_label_table(scores))
    console.print(_score_table(scores))
    free = scores["threshold_free"]
    mark = f" ({'; '.join(_marks(scores))})" if _marks(scores) else ""
    console.print(
        f"out-of-fold mAP{mark}: {number(free['map'])}   "
        f"a constant score per label would give {number(free['prevalence_map'])}   "
        f"macro AUC{mark}: {number(free['auc_macro'])}"
    )
    for note in scores["notes"]:
        print_note(console, note)


def print_guess(console: Console, path: Path, reasons: Sequence[str]) -> None:
    """What a new config says and why, and what to do next."""
    for reason in reasons:
        console.print(f"guessed: {reason}", markup=False)
    console.print(f"{path} is written; look at each line, then: python run_cv.py {path} --debug", markup=False)


def print_validated(console: Console, file: Path, warnings: Sequence[str]) -> None:
    """That a file is a valid submission, and what else was noticed."""
    console.print(f"{escape(str(file))}: valid", soft_wrap=True)
    for warning in warnings:
        print_note(console, warning)


def print_submitted(console: Console, written: Submitted) -> None:
    """Where the submission lies, how often each label was decided, and what score to expect."""
    drawn = Table(title="Test rows each label is predicted for", title_justify="left")
    drawn.add_column("label")
    drawn.add_column("rows", justify="right")
    drawn.add_column("share", justify="right")
    drawn.add_column("out-of-fold share", justify="right")
    for label, count in written.positives.items():
        drawn.add_row(
            escape(label), str(count), _percent(count / written.images), _percent(written.out_of_fold_rates[label])
        )
    console.print(drawn)
    console.print(f"{written.path}: {written.rows} rows, valid; {written.members} predictions averaged per image")
    console.print(
        f"{written.metric} to expect: {number(written.cross_fitted)} (cross-fitted; "
        f"in-sample {number(written.in_sample)})"
    )
    for note in written.notes:
        print_note(console, note)


def _marks(scores: Mapping[str, Any]) -> list[str]:
    """What must stand beside every score of the run."""
    some = folds_mark(scores["folds"], scores["of_folds"])
    return [*([EPOCH_MARK] if EPOCH_MARK in scores["notes"] else []), *([some] if some else [])]


def _label_table(scores: Mapping[str, Any]) -> Table:
    mark = "".join(f"; {mark}" for mark in _marks(scores))
    title = f"Out-of-fold figures per label (decisions cross-fitted; thresholds fitted on all rows{mark})"
    drawn = Table(title=title, title_justify="left")
    drawn.add_column("label")
    for name in ("positives", "AP", "AUC", "threshold", "precision", "recall", "F1"):
        drawn.add_column(name, justify="right")
    for label, row in scores["labels"].items():
        figures = [row[key] for key in ("average_precision", "auc", "threshold", "precision", "recall", "f1")]
        drawn.add_row(escape(label), str(row["positives"]), *map(number, figures))
    return drawn


def _score_table(scores: Mapping[str, Any]) -> Table:
    mark = "".join(f", {mark}" for mark in _marks(scores))
    judged = "of the decisions to be submitted" if scores["fitted"] else "(no threshold was fitted)"
    drawn = Table(title=f"{scores['metric']} {judged}{mark}", title_justify="left")
    drawn.add_column("thresholds")
    drawn.add_column("pooled", justify="right", style="bold")
    drawn.add_column("95 % interval", justify="right")
    drawn.add_column("mean of folds", justify="right")
    drawn.add_column("folds", justify="right")
    rows = [("cross_fitted", "cross-fitted (believe this one)"), ("in_sample", "in-sample (flatters)")]
    for key, name in rows if scores["fitted"] else [("cross_fitted", "out-of-fold")]:
        row = scores[key]
        folds = "  ".join(map(number, row["folds"]))
        drawn.add_row(name, number(row["pooled"]), _interval(row["interval"]), number(row["mean"]), folds)
    return drawn


def number(value: float | None) -> str:
    """Four decimals, or a dash for a score that does not exist."""
    return "-" if value is None else f"{value:.4f}"


def _interval(ends: Sequence[float | None]) -> str:
    return " to ".join(map(number, ends))


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"
