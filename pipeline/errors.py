"""The exceptions: a mistake that a user can correct is a `PipelineError` and ends with exit code 2."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections import Counter
from collections.abc import Iterable

_COMMANDS = re.compile(r"[^\n\t\x20-\x7e\xa0-\u200d\u2010-\u2029\u202f-\u2065\u206a-\ud7ff\ue000-\U0010ffff]")
_CUT = reprlib.Repr()
_CUT.maxstring = _CUT.maxother = _CUT.maxlong = 80
_LONGEST = 300  # letters of an item in a list


class PipelineError(Exception):
    """A mistake in the user's input.

    Args:
        problem: one line that names the file, key or value at fault.
        expected: what is right, where that helps.
        got: what was found.
        remedy: what the user can do.

    Attributes:
        printed_here: whether this process prints it; None until several processes agreed on the one that does.
    """

    printed_here: bool | None = None

    def __init__(self, problem: str, *, remedy: str, expected: str | None = None, got: str | None = None) -> None:
        self.problem, self.expected, self.got, self.remedy = problem, expected, got, remedy
        lines = [problem]
        lines += [f"  expected: {expected}"] if expected is not None else []
        lines += [f"  got:      {got}"] if got is not None else []
        lines += [f"  remedy:   {remedy}"]
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle all four parts, so that another process receives the whole error."""
        return (_rebuild, (type(self), self.problem, self.expected, self.got, self.remedy))


def _rebuild(
    kind: type[PipelineError], problem: str, expected: str | None, got: str | None, remedy: str
) -> PipelineError:
    return kind(problem, expected=expected, got=got, remedy=remedy)


class ConfigError(PipelineError):
    """A config file or an override is wrong: unknown key, wrong type, unknown name."""


class CompetitionError(PipelineError):
    """A competition file is wrong: a missing CSV or column, a bad label, a duplicate id."""


class ImageError(PipelineError):
    """An image is missing, unreadable, truncated or of an unusable kind."""


class FoldError(PipelineError):
    """Folds cannot be made, or a fold file does not fit the data."""


class RunError(PipelineError):
    """A run folder does not fit the command."""


class SubmissionError(PipelineError):
    """A submission, or the sample it must follow, is not valid."""


def printable(text: str) -> str:
    """`text` with characters that command a terminal, turn its direction or are half a pair as escapes: \\x1b."""
    return _COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text)


def shown(value: object) -> str:
    """`repr(value)`, cut where it is long or deep."""
    return _CUT.repr(value)


def nearest(name: str, choices: Iterable[str]) -> str:
    """The words "; did you mean 'x'?" for the closest of `choices`, or an empty string."""
    found = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f"; did you mean '{found[0]}'?" if found else ""


def repeated_names(names: Iterable[str]) -> list[str]:
    """The names that occur more than once, each once."""
    return [name for name, times in Counter(names).items() if times > 1]


def listing(items: Iterable[object], limit: int = 5) -> str:
    """`items` joined by commas; those after `limit` are counted: "a, b, c and 7 more"."""
    names = [str(item) for item in items]
    first = ", ".join(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…" for name in names[:limit])
    return first if len(names) <= limit else f"{first} and {len(names) - limit} more"
