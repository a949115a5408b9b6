"""The findings of an audit: plain data that JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from pipeline.errors import PipelineError
from pipeline.events import Event, Listener, Note

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One finding of the audit.

    Attributes:
        level: an error stops a run; a warning may cost score; a note is information.
        kind: a stable word for programs, such as `near_duplicates_test`.
        message: one sentence, with the number of items.
        remedy: what to do about it; "" for a note.
        items: all ids, labels or pairs that it concerns.
    """

    level: Level
    kind: str
    message: str
    remedy: str = ""
    items: tuple[Any, ...] = ()


class Pair(NamedTuple):
    """Two images that are the same (`bytes`, `pixels`) or nearly so (`near`), with their similarity up to 1."""

    first: str
    second: str
    how: str
    similarity: float


@dataclass(frozen=True)
class Audit:
    """All findings, and the numbers behind them."""

    findings: tuple[Finding, ...]
    figures: Mapping[str, Any]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that would stop a run or spoil its submission."""
        return self.of("error")

    @property
    def ready(self) -> bool:
        """Whether there are no errors."""
        return not self.errors

    def of(self, level: Level) -> tuple[Finding, ...]:
        """The findings of one level."""
        return tuple(finding for finding in self.findings if finding.level == level)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers."""
        return {"ready": self.ready, "findings": [asdict(one) for one in self.findings], "figures": dict(self.figures)}


def from_error(kind: str, error: PipelineError) -> Finding:
    """The finding for a PipelineError that is collected instead of raised."""
    parts = [error.problem]
    parts += [f"expected {error.expected}"] if error.expected is not None else []
    parts += [f"got {error.got}"] if error.got is not None else []
    return Finding("error", kind, "; ".join(parts), error.remedy)


def findings_into(findings: list[Finding], kind: str) -> Listener:
    """A listener that appends each new note to `findings`: a note of this kind, or a warning if it has a remedy."""

    def listen(event: Event) -> None:
        if isinstance(event, Note):
            found = Finding("warning" if event.remedy else "note", event.kind or kind, event.sentence, event.remedy)
            if found not in findings:
                findings.append(found)

    return listen


def plural(count: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def finding_if(items: Sequence[Any], level: Level, kind: str, message: str, remedy: str = "") -> list[Finding]:
    """One finding on `items`, or none if there are none; `{}` in the message becomes their number."""
    return [Finding(level, kind, message.format(len(items)), remedy, tuple(items))] if items else []
