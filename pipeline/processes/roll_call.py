"""How processes that train together stay together: before each exchange, each says whether it can go on."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from pipeline.errors import PipelineError
from pipeline.processes.group import group

WAIT = timedelta(days=1)  # for the first process, which may read every image before the others have work
_WAIT_WITH_TROUBLE = timedelta(minutes=30)  # for the others to reach a roll call
_ANOTHER_IS_GONE = re.compile("closed by peer|reset by peer|broken pipe|remote (process|worker)", re.IGNORECASE)
_NUMBERS = 2  # that a roll call can add up


class FullTogetherError(torch.OutOfMemoryError):
    """All processes know that the memory of one of them is full."""


def blank() -> torch.Tensor:
    """What a roll call adds up: how many are in trouble or full, then numbers. All are alike: any meets any."""
    return torch.zeros(2 + _NUMBERS, dtype=torch.float64)


def roll_call(*numbers: float, trouble: BaseException | None = None, full: bool = False) -> tuple[float, ...]:
    """Add up at most two numbers, unless a process cannot go on.

    Where one is in trouble, that of the first such one is raised in all of them; else where the memory of one is
    `full`, FullTogetherError.
    """
    assert len(numbers) <= _NUMBERS, "all roll calls are alike, so that a trouble can meet any of them"
    slots = blank()
    slots[: 2 + len(numbers)] = torch.tensor([trouble is not None, full, *numbers], dtype=torch.float64)
    call = dist.all_reduce(slots, group=group.control, async_op=True)
    call.wait(WAIT if trouble is None else _WAIT_WITH_TROUBLE)
    in_trouble, are_full, *totals = slots.tolist()
    if in_trouble:
        raise _worst_trouble(trouble)
    if are_full:
        raise FullTogetherError("the memory of one of the processes is full")
    return tuple(totals[: len(numbers)])


def _worst_trouble(own: BaseException | None) -> BaseException:
    told = own if own is None or isinstance(own, PipelineError | KeyboardInterrupt) else SystemExit(1)
    troubles: list[Any] = [None] * group.count
    dist.all_gather_object(troubles, told, group=group.control)
    group.ended = True
    kinds = (PipelineError, KeyboardInterrupt, SystemExit)
    worst: BaseException = next(each for kind in kinds for each in troubles if isinstance(each, kind))
    return worst


@contextlib.contextmanager
def exchange() -> Iterator[None]:
    """The processes speak with each other: signals wait, and a process that is gone is told as such.

    Raises:
        PipelineError: another process is gone, or what carries their numbers failed.
    """
    group.exchanging = True
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        group.lost = True
        raise _what_broke(error) from None
    finally:
        group.exchanging = False
    if group.interrupted:
        group.interrupted = False
        raise KeyboardInterrupt


def _what_broke(error: RuntimeError) -> PipelineError:
    got = str(error).splitlines()[0]
    if _ANOTHER_IS_GONE.search(str(error)):
        return PipelineError(
            f"another of the {group.count} processes ended",
            got=got,
            remedy="see what it or its launcher said; the same command goes on from the last saved state",
        )
    return PipelineError(
        f"the {group.count} processes could not exchange their numbers",
        got=got,
        remedy="see what the others said, and with GPUs what NCCL_DEBUG=INFO in the environment tells; "
        "the same command goes on from the last saved state",
    )


@contextlib.contextmanager
def full_together() -> Iterator[None]:
    """Where the memory of one process is full in the block, raise torch.OutOfMemoryError in all of them.

    The others notice at their next exchange, so the block must end with one: nobody may be beyond it.
    """
    try:
        yield
    except FullTogetherError:
        raise
    except torch.OutOfMemoryError:
        if group.count == 1:
            raise
        with exchange():
            roll_call(full=True)


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """What Ctrl-C and SIGTERM do: KeyboardInterrupt, but never in the middle of an exchange.

    A launcher passes on what the terminal has sent already: with several processes only the first signal counts.
    """
    if group.count > 1:
        _ignore_signals()
    if not group.exchanging:
        raise KeyboardInterrupt
    group.interrupted = True


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Tell the others of whatever ends the block here by an exception, and raise the same in all of them.

    A mistake of the user's goes before an interruption. Our own fault stays with the process it happened in; the
    others leave with exit code 1.
    """
    try:
        yield
    except BaseException as error:  # noqa: BLE001 (whatever it is, the others wait)
        raise _announced(error) from error.__cause__


def _announced(error: BaseException) -> BaseException:
    """The exception that all processes raise instead of `error`; `error` itself where the others are gone."""
    if group.control is None or group.ended or group.lost:
        return error
    _ignore_signals()  # of a launcher that ends the others when one of them has ended
    try:
        with exchange():
            roll_call(trouble=error)
    except (PipelineError, KeyboardInterrupt, SystemExit) as worst:
        ours = isinstance(error, PipelineError | KeyboardInterrupt)
        return worst if ours and not group.lost else error
    raise AssertionError("a roll call with trouble raises")
