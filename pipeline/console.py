"""The terminal: one console, notes to a person, numbers in tables."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from pipeline import processes

WIDTH = 110  # of tables where the output is no terminal, such as a log file


def make_console() -> Console:
    """A console that keeps tables whole in log files, too; of several processes only the first one's speaks."""
    quiet = not processes.is_first()
    console = Console(highlight=False, quiet=quiet)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH, quiet=quiet)


def print_note(console: Console, note: str) -> None:
    """One sentence that a person should read; names in it may hold brackets."""
    console.print(f"[yellow]note:[/] {escape(note)}")


def number(value: float | None) -> str:
    """Four decimals, or a dash for a score that does not exist."""
    return "-" if value is None else f"{value:.4f}"
