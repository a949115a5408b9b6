"""Live output of a command: progress bars, and a line per finished epoch or trial."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pipeline import interrupts
from pipeline.competition.folds.rows import FULL_FIT
from pipeline.console import number, print_note, short
from pipeline.events import (
    EpochFinished,
    Event,
    Fold,
    FoldFinished,
    FoldNote,
    ImageProgress,
    Note,
    RunOpened,
    StepFinished,
    TrialFinished,
    TrialStep,
)

_LINE_SECONDS = 60.0  # between lines on steps where no bar can be drawn
_TABLE_SECONDS = 2.0  # between updates of a notebook's table
_PROGRESS = (ImageProgress, StepFinished, TrialStep, TrialFinished, EpochFinished, FoldFinished)


class LiveProgress:
    """A listener that shows a progress bar per running task and a line per finished epoch or trial.

    Use it as a context. If the output is not a terminal it prints lines only; in a notebook each training has one table
    that is updated in place. With `quiet` it shows notes only.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.run_opened = False  # whether the run folder is open, so results are saved
        self._console, self._quiet = console, quiet
        self._tables: dict[str, _NotebookTable] = {}
        self._last_line = time.monotonic()  # of a step, in a log file
        self._bars: dict[str, TaskID] = {}
        self._printed: set[str] = set()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[state]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            speed_estimate_period=120,
        )

    def __enter__(self) -> LiveProgress:
        if self._console.is_terminal and not (self._console.quiet or self._quiet):
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._quiet:
            self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show one event. Raises KeyboardInterrupt if a signal came and was lost."""
        interrupts.check()
        self.run_opened |= isinstance(event, RunOpened)
        if not (self._quiet and isinstance(event, _PROGRESS)):
            self._print(event)

    def _print(self, event: Event) -> None:
        if isinstance(event, ImageProgress):
            self._show(event.doing, event.done, event.total, f"{event.done} of {event.total}")
        elif isinstance(event, StepFinished):
            self._show_step("", event)
        elif isinstance(event, TrialStep):
            self._show_step(f"trial {event.trial} ", event.step)
        elif isinstance(event, TrialFinished):
            self._end_bars(f"trial {event.trial} ")
            self._console.print(_trial_line(event))
        elif isinstance(event, EpochFinished):
            self._print_epoch(_name(event.fold, event.seed), _epoch_line(event.record))
        elif isinstance(event, FoldNote):
            print_note(self._console, f"{_name(event.fold, event.seed)}: {event.sentence}")
        elif isinstance(event, Note) and event.text not in self._printed:
            self._printed.add(event.text)
            print_note(self._console, event.text)
        elif isinstance(event, FoldFinished):
            self._console.print(f"{_name(event.fold)}  {'was finished before' if event.resumed else 'finished'}")

    def _print_epoch(self, name: str, line: str) -> None:
        if self._console.is_jupyter:
            self._tables.setdefault(name, _NotebookTable(name)).add(line)
        else:
            self._console.print(f"{name}  {line}")

    def _show_step(self, prefix: str, event: StepFinished) -> None:
        state = f"epoch {event.epoch}/{event.epochs}  loss {event.loss:.4f}  lr {event.lr:.1e}"
        name, rate = f"{prefix}{_name(event.fold, event.seed)}", f"{event.images_per_second:.0f} img/s"
        now = time.monotonic()
        if self._console.is_jupyter:
            if now - self._last_line > _TABLE_SECONDS:
                self._last_line = now
                self._tables.setdefault(name, _NotebookTable(name)).show(f"step {event.step} of {event.steps}  {state}")
            return
        if not self._console.is_terminal and now - self._last_line > _LINE_SECONDS:
            self._last_line = now
            self._console.print(f"{name}  step {event.step} of {event.steps}  {state}  {rate}")
        self._show(name, event.step, event.steps, f"{state}  {rate}")

    def _end_bars(self, prefix: str) -> None:
        """Remove the bars of a trial: a pruned or failed one ends before they are full."""
        for doing in [doing for doing in self._bars if doing.startswith(prefix)]:
            self._progress.remove_task(self._bars.pop(doing))

    def _show(self, doing: str, done: int, total: int, state: str) -> None:
        if doing not in self._bars:  # a resumed fold begins in the middle
            self._bars[doing] = self._progress.add_task(doing, total=total, completed=done - 1, state=state)
        self._progress.update(self._bars[doing], completed=done, state=state)
        if done == total:
            self._progress.remove_task(self._bars.pop(doing))


class _NotebookTable:
    """The lines of one training in the output of a notebook's cell, replaced in place; plain text, without a widget."""

    def __init__(self, name: str) -> None:
        self._lines = [name]
        self._handle: Any = None

    def add(self, line: str) -> None:
        """Add the line of an epoch."""
        self._lines.append(line)
        self.show()

    def show(self, *state: str) -> None:
        """Show all lines, and below them a line that is not kept."""
        from IPython.display import display  # a notebook has it

        shown = {"text/plain": "\n".join([*self._lines, *state])}
        if self._handle is None:
            self._handle = display(shown, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(shown, raw=True)


def _name(fold: Fold, seed: int | None = None) -> str:
    """The name of a training: its fold or the full fit, and the seed if the fold has several models."""
    return ("full fit" if fold == FULL_FIT else f"fold {fold}") + (f" seed {seed}" if seed is not None else "")


def _epoch_line(record: Mapping[str, Any]) -> str:
    known = ("epoch", "loss", "lr", "images_per_second", "seconds")
    scores = "  ".join(f"{name} {number(value)}" for name, value in record.items() if name not in known)
    return (
        f"epoch {record['epoch']:>3}  loss {record['loss']:.4f}  {scores}  "
        f"{record['images_per_second']:.0f} img/s  {record['seconds']:.1f} s"
    )


def _trial_line(event: TrialFinished) -> str:
    values = "  ".join(f"{name}={short(value)}" for name, value in event.values.items())
    count = f"{event.done:>{len(str(event.trials))}} of {event.trials}"
    return f"{count}  trial {event.trial:>3}  {event.outcome:<14} best {number(event.best)}  {values}"
