"""Who this process is among those that train together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.errors import ConfigError

T = TypeVar("T")


@dataclass
class Group:
    """This process among its kind; alone until `join`."""

    rank: int = 0
    count: int = 1
    control: Any = None  # a gloo group: what is agreed lies in the host's memory, also beside GPUs
    local_count: int = 1
    exchanging: bool = False
    interrupted: bool = False  # while exchanging
    ended: bool = False  # all have agreed on the error they end with
    lost: bool = False  # another process is gone


group = Group()


def count() -> int:
    """How many processes train together; 1 where a command runs alone."""
    return group.count


def rank() -> int:
    """The number of this process, from 0."""
    return group.rank


def is_first() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return group.rank == 0


def tells_mistakes() -> bool:
    """Whether it falls to this process to tell a mistake: the first one tells what all have agreed on."""
    return is_first() or group.lost


def local_count() -> int:
    """How many of the processes share this machine."""
    return group.local_count


def part_of(items: Sequence[T]) -> Sequence[T]:
    """This process's part of `items`: every so manieth; the parts differ by one item at most."""
    return items[group.rank :: group.count]


def require_one(what: str) -> None:
    """Raises ConfigError where `what` was started in several processes."""
    if group.count > 1:
        raise ConfigError(
            f"{what} works in one process, but {group.count} were started",
            remedy="start it plainly with python; several processes train the folds of run_cv.py CONFIG",
        )
