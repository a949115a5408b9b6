"""The one tree of exceptions: whatever a user can mend is a `PipelineError` and ends with exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PipelineError(Exception):
    """A mistake in the user's input, told as problem, expected, got and remedy.

    Args:
        problem: one line that names the file, key or value at fault.
        expected: what would have been right, where that helps.
        got: what was found instead.
        remedy: what to do about it.
    """

    def __init__(self, problem: str, *, remedy: str, expected: str | None = None, got: str | None = None) -> None:
        self.problem, self.expected, self.got, self.remedy = problem, expected, got, remedy
        lines = [problem]
        lines += [f"  expected: {expected}"] if expected is not None else []
        lines += [f"  got:      {got}"] if got is not None else []
        lines += [f"  remedy:   {remedy}"]
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from all four parts, so that an error crosses process borders whole."""
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
    """Folds cannot be made, or an external fold file does not fit the data."""


class RunError(PipelineError):
    """A run folder does not fit what was asked of it."""


class SubmissionError(PipelineError):
    """A submission, or the sample it must follow, is not valid."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """The sentence part "; did you mean 'x'?" for the closest of `choices`, or nothing."""
    found = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f"; did you mean '{found[0]}'?" if found else ""


def listing(items: Iterable[object], limit: int = 5) -> str:
    """`items` joined by commas; past `limit` the rest is counted: "a, b, c and 7 more"."""
    names = [str(item) for item in items]
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
