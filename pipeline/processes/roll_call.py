"""How processes that train together stay together: before each exchange, each says whether it can go on."""

from __future__ import annotations

import contextlib
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
_NUMBERS = 2  # that a roll call can add up


def blank() -> torch.Tensor:
    """What a roll call adds up: how many are in trouble, then numbers. All are alike, so that any meets any."""
    return torch.zeros(1 + _NUMBERS, dtype=torch.float64)


def roll_call(*numbers: float, trouble: BaseException | None = None) -> tuple[float, ...]:
    """Add up at most two numbers; where a process is in trouble, raise that of the first such one, in all of them."""
    assert len(numbers) <= _NUMBERS, "all roll calls are alike, so that a trouble can meet any of them"
    slots = blank()
    slots[: 1 + len(numbers)] = torch.tensor([float(trouble is not None), *numbers], dtype=torch.float64)
    call = dist.all_reduce(slots, group=group.control, async_op=True)
    call.wait(WAIT if trouble is None else _WAIT_WITH_TROUBLE)
    if slots[0] > 0:
        raise _worst_trouble(trouble)
    return tuple(slots[1 : 1 + len(numbers)].tolist())


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
    """The processes speak with each other: signals wait, and a process that is gone is told as such."""
    group.exchanging = True
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        group.lost = True
        raise PipelineError(
            f"another of the {group.count} processes ended",
            got=str(error).splitlines()[0],
            remedy="see what it or its launcher said; the same command goes on from the last saved state",
        ) from None
    finally:
        group.exchanging = False
    if group.interrupted:
        group.interrupted = False
        raise KeyboardInterrupt


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
