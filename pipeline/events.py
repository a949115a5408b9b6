"""Events that a training sends to its listener: plain values that can be sent between processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

Fold = int | Literal["full"]
"""The number of a fold, or the full fit: a training on all rows."""


class ImageProgress(NamedTuple):
    """Progress of checking images, or of reading them into the cache, before training."""

    doing: str
    done: int
    total: int


class StepFinished(NamedTuple):
    """One optimizer step is done."""

    fold: Fold
    epoch: int  # from 1
    epochs: int
    step: int  # from 1, over all epochs
    steps: int
    loss: float
    lr: float
    images_per_second: float
    seed: int | None = None  # of the model, where a fold has several


class EpochFinished(NamedTuple):
    """An epoch is trained, validated and saved; `record` is its line in epochs.jsonl."""

    fold: Fold
    record: Mapping[str, Any]
    seed: int | None = None


class FoldFinished(NamedTuple):
    """A fold, or the full fit, is finished: its weights and out-of-fold logits are on disk."""

    fold: Fold
    resumed: bool  # it was finished before this command


class FoldNote(NamedTuple):
    """A sentence for a person about a fold in training."""

    fold: Fold
    sentence: str
    seed: int | None = None


class Note(NamedTuple):
    """A sentence for a person about the whole run; it may be sent several times.

    With a remedy, something is likely wrong, and `check` reports a warning of this kind.
    """

    sentence: str
    kind: str = ""
    remedy: str = ""

    @property
    def text(self) -> str:
        """The sentence with its remedy."""
        return f"{self.sentence}; {self.remedy}" if self.remedy else self.sentence


class RunOpened(NamedTuple):
    """The run folder, or its study, is open: `--fresh` has deleted, and from now on state is kept."""


class TrialStep(NamedTuple):
    """A trial of a search is training."""

    trial: int
    step: StepFinished


class TrialFinished(NamedTuple):
    """A trial of a search is over."""

    trial: int
    outcome: str  # its score, or why there is none
    done: int  # trials that are complete or pruned, over all workers
    trials: int
    best: float | None
    values: Mapping[str, Any]


Event = (
    ImageProgress
    | StepFinished
    | EpochFinished
    | FoldFinished
    | FoldNote
    | Note
    | RunOpened
    | TrialStep
    | TrialFinished
)
Listener = Callable[[Event], None]


class Mailbox:
    """The events of several senders, in order, until they are taken. As an actor of Ray it starts without torch."""

    def __init__(self) -> None:
        self._kept: list[tuple[Any, Event | None]] = []

    def put(self, sender: Any, event: Event | None) -> None:
        """Keep an event; None is a sign of life."""
        self._kept.append((sender, event))

    def take(self) -> list[tuple[Any, Event | None]]:
        """The senders and events since the last call."""
        taken, self._kept = self._kept, []
        return taken


def ignore(_event: Event) -> None:
    """Do nothing: the listener of callers who have heard the notes before."""


def notes_into(sentences: list[str]) -> Listener:
    """A listener that appends the sentence of each new note to `sentences`."""

    def listen(event: Event) -> None:
        if isinstance(event, Note) and event.text not in sentences:
            sentences.append(event.text)

    return listen
