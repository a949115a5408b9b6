"""The console of a command, and the form of notes and numbers on it."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape

from pipeline import processes

WIDTH = 110  # of tables in a log file


def make_console() -> Console:
    """A console that prints whole tables into log files, too; of several processes only the first one prints."""
    quiet = not processes.is_first()
    if sys.stdout.isatty():
        return Console(highlight=False, quiet=quiet)
    # A notebook asks for a terminal's colours by FORCE_COLOR, but cannot redraw a bar.
    return Console(highlight=False, width=WIDTH, quiet=quiet, force_terminal=False)


def print_note(console: Console, note: str) -> None:
    """Print one sentence for the user; names in it may contain brackets."""
    console.print(f"[yellow]note:[/] {escape(note)}")


def number(value: float | None) -> str:
    """The value with four decimals, or a dash for None."""
    return "-" if value is None else f"{value:.4f}"


def short(value: object) -> str:
    """A value of a parameter: three digits of a float, others in full."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
