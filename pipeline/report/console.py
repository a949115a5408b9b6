"""What the terminal shows: fold table, live progress, score tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline import processes
from pipeline.evaluation.honest import EPOCH_MARK
from pipeline.folds import FoldTable, folds_mark
from pipeline.inference.submit import Submitted
from pipeline.runs import FULL_FIT
from pipeline.training.progress import (
    EpochDone,
    Event,
    FoldDone,
    ImagesSeen,
    Note,
    Remark,
    StepDone,
    TrialDone,
    TrialStep,
)

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


class LiveProgress:
    """One bar for what is being done, or one per running fold, and a line per finished epoch.

    A listener to be used as a context. Where the output is no terminal there are lines only.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: dict[str, TaskID] = {}
        self._told: set[str] = set()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[state]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            speed_estimate_period=120,
        )

    def __enter__(self) -> LiveProgress:
        if self._console.is_terminal and not self._console.quiet:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, ImagesSeen):
            self._show(event.doing, event.done, event.total, f"{event.done} of {event.total}")
        elif isinstance(event, StepDone):
            self._show_step("", event)
        elif isinstance(event, TrialStep):
            self._show_step(f"trial {event.trial} ", event.step)
        elif isinstance(event, TrialDone):
            self._end_bars(f"trial {event.trial} ")
            self._console.print(escape(_trial_line(event)))
        elif isinstance(event, EpochDone):
            self._console.print(f"{_whose(event.fold, event.seed)}  {_epoch_line(event.record)}")
        elif isinstance(event, Remark):
            print_note(self._console, f"{_whose(event.fold, event.seed)}: {event.sentence}")
        elif isinstance(event, Note) and event.sentence not in self._told:
            self._told.add(event.sentence)
            print_note(self._console, event.sentence)
        elif isinstance(event, FoldDone):
            self._console.print(f"{_whose(event.fold)}  {'was finished before' if event.resumed else 'finished'}")

    def _show_step(self, whose: str, event: StepDone) -> None:
        state = f"epoch {event.epoch}/{event.epochs}  loss {event.loss:.4f}  lr {event.lr:.1e}"
        rate = f"{event.images_per_second:.0f} img/s"
        self._show(f"{whose}{_whose(event.fold, event.seed)}", event.step, event.steps, f"{state}  {rate}")

    def _end_bars(self, whose: str) -> None:
        """A pruned or failed trial ends before its bar is full."""
        for doing in [doing for doing in self._bars if doing.startswith(whose)]:
            self._progress.remove_task(self._bars.pop(doing))

    def _show(self, doing: str, done: int, total: int, state: str) -> None:
        if doing not in self._bars:  # a resumed fold begins in the middle, and its rate from there
            self._bars[doing] = self._progress.add_task(doing, total=total, completed=done - 1, state=state)
        self._progress.update(self._bars[doing], completed=done, state=state)
        if done == total:
            self._progress.remove_task(self._bars.pop(doing))


def print_scores(console: Console, scores: Mapping[str, Any]) -> None:
    """The per-label table, then the pooled scores, in-sample and cross-fitted, each marked as such."""
    console.print(_label_table(scores))
    console.print(_score_table(scores))
    free = scores["threshold_free"]
    mark = f" ({'; '.join(_marks(scores))})" if _marks(scores) else ""
    console.print(
        f"out-of-fold mAP{mark}: {_number(free['map'])}   "
        f"a constant score per label would give {_number(free['prevalence_map'])}   "
        f"macro AUC{mark}: {_number(free['auc_macro'])}"
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
        f"{written.metric} to expect: {_number(written.cross_fitted)} (cross-fitted; "
        f"in-sample {_number(written.in_sample)})"
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
        drawn.add_row(escape(label), str(row["positives"]), *map(_number, figures))
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
        folds = "  ".join(map(_number, row["folds"]))
        drawn.add_row(name, _number(row["pooled"]), _interval(row["interval"]), _number(row["mean"]), folds)
    return drawn


def _whose(fold: int, seed: int | None = None) -> str:
    """The fold, or the full fit, and where it has several models, the seed of one."""
    return ("full fit" if fold == FULL_FIT else f"fold {fold}") + (f" seed {seed}" if seed is not None else "")


def _epoch_line(record: Mapping[str, Any]) -> str:
    known = ("epoch", "loss", "lr", "images_per_second", "seconds")
    judged = "  ".join(f"{name} {_number(value)}" for name, value in record.items() if name not in known)
    return (
        f"epoch {record['epoch']:>3}  loss {record['loss']:.4f}  {judged}  "
        f"{record['images_per_second']:.0f} img/s  {record['seconds']:.1f} s"
    )


def _trial_line(event: TrialDone) -> str:
    values = "  ".join(f"{name}={_short(value)}" for name, value in event.values.items())
    count = f"{event.done:>{len(str(event.trials))}} of {event.trials}"
    return f"{count}  trial {event.trial:>3}  {event.outcome:<14} best {_number(event.best)}  {values}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _interval(ends: Sequence[float | None]) -> str:
    return " to ".join(map(_number, ends))


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"
