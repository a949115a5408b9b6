"""Who this process is among those that a launcher (torchrun, `accelerate launch`) started together. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

from pipeline.errors import ConfigError

T = TypeVar("T")


def count() -> int:
    """The number of processes that train together; 1 if a command runs alone."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """The number of this process, from 0."""
    return _number("RANK", 0) if count() > 1 else 0


def local_rank() -> int:
    """The number of this process among those of its machine, from 0."""
    return _number("LOCAL_RANK", 0) if count() > 1 else 0


def local_count() -> int:
    """The number of these processes on this machine."""
    return _number("LOCAL_WORLD_SIZE", count())


def is_first() -> bool:
    """Whether this process is the one that writes files and prints."""
    return rank() == 0


def part_of(items: Sequence[T]) -> Sequence[T]:
    """The items rank, rank + count, rank + 2 count, …; the parts of two processes differ by one item at most."""
    return items[rank() :: count()]


def require_one(what: str) -> None:
    """Raises ConfigError where `what` was started in several processes."""
    if count() > 1:
        raise ConfigError(
            f"{what} works in one process, but {count()} were started",
            remedy="start it plainly with python; several processes train the folds of run_cv.py CONFIG",
        )


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(
            f"the environment variable {name} is no number", got=repr(text), remedy=f"unset {name}, or use a launcher"
        )
    return int(text)
