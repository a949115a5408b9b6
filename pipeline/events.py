"""What a training tells whoever watches it: plain values that cross process borders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

Fold = int | Literal["full"]
"""The number of a fold, or the full fit: a training on all rows."""


class ImageProgress(NamedTuple):
    """So many images are checked, or read into the cache, before training."""

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
    seed: int | None = None  # whose model it is, where a fold has several


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
    """A sentence a person should read, about a fold in training."""

    fold: Fold
    sentence: str
    seed: int | None = None


class Note(NamedTuple):
    """A sentence a person should read, about the whole run; it may come several times."""

    sentence: str


class RunOpened(NamedTuple):
    """The run folder is open, or its study: what was to be deleted first is gone, and from here on state is kept."""


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
