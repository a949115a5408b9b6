"""Several processes that train one fold together: who this one is, and what all of them agree on.

A launcher (torchrun, `accelerate launch`, Accelerate's notebook launcher) starts the same command once per GPU.
All of them walk the same path. Where they exchange something, there is first a roll call: a process that cannot
go on says so there, whatever stopped it and wherever, and all end together with the same error. In a command
that runs alone every function here does nothing, or gives back what it was given.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate, pairwise
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn

from pipeline.errors import ConfigError, PipelineError, listing

T = TypeVar("T")

_WAIT = timedelta(days=1)  # for the first process, which may read every image before the others have work
_WAIT_WITH_TROUBLE = timedelta(minutes=30)  # for the others to reach a roll call
_WAIT_AT_THE_END = timedelta(minutes=1)
_NUMBERS = 2  # that a roll call can add up
_BUCKET = 2**22  # numbers of a gradient that are sent at once


@dataclass
class _Group:
    """This process among its kind; alone until `join`."""

    rank: int = 0
    count: int = 1
    control: Any = None  # a gloo group: what is agreed lies in the host's memory, also beside GPUs
    local_count: int = 1
    exchanging: bool = False
    interrupted: bool = False  # while exchanging
    ended: bool = False  # all have agreed on the error they end with
    lost: bool = False  # another process is gone


_group = _Group()


def count() -> int:
    """How many processes train together; 1 where a command runs alone."""
    return _group.count


def rank() -> int:
    """The number of this process, from 0."""
    return _group.rank


def is_first() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return _group.rank == 0


def tells_mistakes() -> bool:
    """Whether it falls to this process to tell a mistake: the first one tells what all have agreed on."""
    return is_first() or _group.lost


def local_count() -> int:
    """How many of the processes share this machine."""
    return _group.local_count


def part_of(items: Sequence[T]) -> Sequence[T]:
    """This process's part of `items`: every so manieth; the parts differ by one item at most."""
    return items[_group.rank :: _group.count]


def join() -> None:
    """Find the others, where a launcher started several, and take this process's GPU.

    Raises:
        ConfigError: there are fewer GPUs than processes on this machine, or no launcher started this one.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"the environment holds WORLD_SIZE={world}, but no {listing(missing)}",
            remedy="unset WORLD_SIZE, or start the command by a launcher, such as torchrun or accelerate launch",
        )
    _group.rank, _group.count = int(os.environ.get("RANK", "0")), world
    _group.local_count = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    gpus = torch.cuda.device_count()
    if 0 < gpus < _group.local_count:
        raise ConfigError(
            f"{_group.local_count} processes were started, but there are {gpus} GPUs here",
            remedy=f"start {gpus}, one for each GPU",
        )
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _group.local_count)))
    PartialState(cpu=gpus == 0)  # nccl and this process's GPU, or gloo
    _group.rank = dist.get_rank()
    _group.control = dist.new_group(backend="gloo", timeout=_WAIT)
    signal.signal(signal.SIGINT, interrupt)


def leave() -> None:
    """Wait until all are through, and let go of each other."""
    if _group.control is not None and not _group.lost:
        with contextlib.suppress(RuntimeError):
            slots = torch.zeros(1 + _NUMBERS, dtype=torch.float64)  # as in a roll call, which another may be at
            dist.all_reduce(slots, group=_group.control, async_op=True).wait(_WAIT_AT_THE_END)
        dist.destroy_process_group()
    _group.__dict__.update(vars(_Group()))


def require_one(what: str) -> None:
    """Raises ConfigError where `what` was started in several processes."""
    if _group.count > 1:
        raise ConfigError(
            f"{what} works in one process, but {_group.count} were started",
            remedy="start it plainly with python; several processes train the folds of run_cv.py CONFIG",
        )


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """What Ctrl-C and SIGTERM do: KeyboardInterrupt, but never in the middle of an exchange.

    A launcher passes on what the terminal has sent already: with several processes only the first signal counts.
    """
    if _group.count > 1:
        _ignore_signals()
    if not _group.exchanging:
        raise KeyboardInterrupt
    _group.interrupted = True


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


def total(*numbers: float) -> tuple[float, ...]:
    """Each of at most two numbers added up over all processes."""
    if _group.count == 1:
        return numbers
    with _exchange():
        return _roll_call(*numbers)


def first_says(flag: bool) -> bool:
    """The `flag` of the first process, in all of them."""
    return total(float(flag and is_first()))[0] > 0


def from_first(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, called there alone; all wait for it."""
    if _group.count == 1:
        return make()
    box: list[Any] = [make() if is_first() else None]
    with _exchange():
        _roll_call()
        dist.broadcast_object_list(box, src=0, group=_group.control)
    value: T = box[0]
    return value


def gather(value: T) -> list[T]:
    """The `value` of each process, in their order."""
    if _group.count == 1:
        return [value]
    values: list[Any] = [None] * _group.count
    with _exchange():
        _roll_call()
        dist.all_gather_object(values, value, group=_group.control)
    return values


def total_gradient(loss: float, parameters: Iterable[nn.Parameter]) -> float:
    """Add up the gradients of all processes, in place; the sum of their `loss`."""
    if _group.count == 1:
        return loss
    with _exchange():
        (loss,) = _roll_call(loss)
        for gradients in _buckets(each.grad for each in parameters):
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            places = accumulate((gradient.numel() for gradient in gradients), initial=0)
            for gradient, (start, end) in zip(gradients, pairwise(places), strict=True):
                gradient.copy_(flat[start:end].view_as(gradient))
    return loss


def share_buffers(module: nn.Module) -> None:
    """Give every process the first one's buffers, such as the running statistics of a batch norm."""
    if _group.count == 1:
        return
    with _exchange():
        _roll_call()
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def _buckets(gradients: Iterable[Tensor | None]) -> Iterator[list[Tensor]]:
    """Those that there are, in lists of one type that can be sent as one message."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if gradient is None:
            continue
        if bucket and (size + gradient.numel() > _BUCKET or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket, size = [*bucket, gradient], size + gradient.numel()
    if bucket:
        yield bucket


@contextlib.contextmanager
def _exchange() -> Iterator[None]:
    """The processes speak with each other: signals wait, and a process that is gone is told as such."""
    _group.exchanging = True
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        _group.lost = True
        raise PipelineError(
            f"another of the {_group.count} processes ended",
            got=str(error).splitlines()[0],
            remedy="see what it or its launcher said; the same command goes on from the last saved state",
        ) from None
    finally:
        _group.exchanging = False
    if _group.interrupted:
        _group.interrupted = False
        raise KeyboardInterrupt


def _roll_call(*numbers: float, trouble: BaseException | None = None) -> tuple[float, ...]:
    """Add up the numbers; where a process is in trouble, raise that of the first such process, in all of them."""
    assert len(numbers) <= _NUMBERS, "all roll calls are alike, so that a trouble can meet any of them"
    slots = torch.zeros(1 + _NUMBERS, dtype=torch.float64)
    slots[: 1 + len(numbers)] = torch.tensor([float(trouble is not None), *numbers], dtype=torch.float64)
    call = dist.all_reduce(slots, group=_group.control, async_op=True)
    call.wait(_WAIT if trouble is None else _WAIT_WITH_TROUBLE)
    if slots[0] > 0:
        raise _worst_trouble(trouble)
    return tuple(slots[1 : 1 + len(numbers)].tolist())


def _worst_trouble(own: BaseException | None) -> BaseException:
    told = own if own is None or isinstance(own, PipelineError | KeyboardInterrupt) else SystemExit(1)
    troubles: list[Any] = [None] * _group.count
    dist.all_gather_object(troubles, told, group=_group.control)
    _group.ended = True
    kinds = (PipelineError, KeyboardInterrupt, SystemExit)
    worst: BaseException = next(each for kind in kinds for each in troubles if isinstance(each, kind))
    return worst


def _announced(error: BaseException) -> BaseException:
    """The exception that all processes raise instead of `error`; `error` itself where the others are gone."""
    if _group.control is None or _group.ended or _group.lost:
        return error
    _ignore_signals()  # of a launcher that ends the others when one of them has ended
    try:
        with _exchange():
            _roll_call(trouble=error)
    except (PipelineError, KeyboardInterrupt, SystemExit) as worst:
        ours = isinstance(error, PipelineError | KeyboardInterrupt)
        return worst if ours and not _group.lost else error
    raise AssertionError("a roll call with trouble raises")
