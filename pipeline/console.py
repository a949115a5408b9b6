"""The console of a command, and the form of notes and numbers on it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from pipeline import processes
from pipeline.errors import printable

WIDTH = 110  # of tables in a log file


class PlainConsole(Console):
    """Prints names as they are: brackets are no markup, and what would command the terminal is escaped."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """All text of the console passes here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def make_console() -> Console:
    """A console that prints whole tables into log files, too; of several processes only the first one prints."""
    quiet = not processes.is_first()
    if sys.stdout.isatty():
        return PlainConsole(quiet=quiet)
    # A notebook asks for a terminal's colours by FORCE_COLOR, but cannot redraw a bar.
    return PlainConsole(width=WIDTH, quiet=quiet, force_terminal=False)


def print_note(console: Console, note: str) -> None:
    """Print one sentence for the user."""
    print_marked(console, "note:", "yellow", note)


def print_marked(console: Console, word: str, style: str, rest: str) -> None:
    """Print a coloured word, then the rest of the line."""
    console.print(Text.assemble((word, style), f" {rest}"))


def number(value: float | None) -> str:
    """The value with four decimals, or a dash for None."""
    return "-" if value is None else f"{value:.4f}"


def short(value: object) -> str:
    """A value of a parameter: three digits of a float, others in full."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
