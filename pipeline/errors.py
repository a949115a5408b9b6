"""The exceptions: a mistake that a user can correct is a `PipelineError` and ends with exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


def nearest(name: str, choices: Iterable[str]) -> str:
    """The words "; did you mean 'x'?" for the closest of `choices`, or an empty string."""
    found = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f"; did you mean '{found[0]}'?" if found else ""


def listing(items: Iterable[object], limit: int = 5) -> str:
    """`items` joined by commas; those after `limit` are counted: "a, b, c and 7 more"."""
    names = [str(item) for item in items]
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
