"""Several processes that train one fold together: how they meet, agree, and end together.

A launcher (torchrun, `accelerate launch`, Accelerate's notebook launcher) starts the same command once per GPU. All
processes execute the same lines; `accelerate.prepare` wraps the network in DistributedDataParallel, and rank 0 reads,
writes and prints. In a command that runs alone every function here returns what it was given.
"""

from __future__ import annotations

import base64
import contextlib
import os
import pickle
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from accelerate import PartialState
from numpy.typing import NDArray
from torch import nn

from pipeline import interrupts, processes
from pipeline.config import ImagesConfig
from pipeline.device import share_cores
from pipeline.errors import ConfigError, PipelineError, listing
from pipeline.machine import refusal

T = TypeVar("T")

_WAIT = timedelta(days=1)  # for rank 0, which may build a cache for hours; a dead process is found by its pulse
_BEAT, _MISSED, _GRACE = 1.0, 20, 15.0  # seconds, beats, seconds
_TRANSPORT = re.compile("gloo|nccl|socket|closed by peer|reset by peer|broken pipe|remote process", re.IGNORECASE)
_control: Any = None  # a gloo group: what is agreed lies in the host's memory, also beside GPUs


def total(*numbers: float) -> tuple[float, ...]:
    """Each number summed over all processes."""
    if processes.count() == 1:
        return numbers
    sums = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(sums, group=_control)
    return tuple(sums.tolist())


def from_first(make: Callable[[], T]) -> T:
    """The result of `make`, which rank 0 alone calls; all others wait for it."""
    if processes.count() == 1:
        return make()
    box: list[Any] = [make() if processes.is_first() else None]
    ready = dist.barrier(group=_control, async_op=True)
    while not ready.is_completed():  # a signal interrupts a sleep, but no call of gloo
        time.sleep(0.001)
    ready.wait()
    dist.broadcast_object_list(box, src=0, group=_control)
    value: T = box[0]
    return value


def gather(value: T) -> list[T]:
    """The `value` of each process, by rank."""
    if processes.count() == 1:
        return [value]
    values: list[Any] = [None] * processes.count()
    dist.all_gather_object(values, value, group=_control)
    return values


def in_parts(predict: Callable[[NDArray[np.int64]], NDArray[np.float64]], rows: NDArray[np.int64]) -> NDArray[Any]:
    """`predict(rows)`, which returns an array for each row, where each process predicts a part of the rows."""
    if processes.count() == 1:
        return predict(rows)
    parts = gather(predict(np.asarray(processes.part_of(rows))))  # type: ignore[arg-type]
    whole = np.full((len(rows), parts[0].shape[1]), np.nan)
    for rank, part in enumerate(parts):
        whole[rank :: processes.count()] = part
    return whole


def share_buffers(module: nn.Module) -> None:
    """Give every process the buffers of rank 0: live batch norms on a CPU have seen other images in each process."""
    if processes.count() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, src=0)


def has_unused_parameters(model: nn.Module, images: ImagesConfig) -> bool:
    """Whether some trainable parameters never get a gradient, as in some networks of timm whose end is cut off."""
    logits = model.eval()(torch.zeros(1, images.channels, *images.height_width))
    model.train()
    seen, left = set[Any](), [logits.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [parent for parent, _ in node.next_functions]
    used = {node.variable for node in seen if hasattr(node, "variable")}
    return any(each.requires_grad and each not in used for each in model.parameters())


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """The processes meet, execute the block, and end together: an error of one is raised in all of them.

    A mistake, an interruption and the death of a process end all of them within a minute. A bug keeps its traceback in
    the process it happened in; the others leave with exit code 1.

    Raises:
        ConfigError: there are fewer GPUs than processes on this machine, or no launcher started this one.
        PipelineError: another process is gone, or the processes cannot reach each other.
    """
    if processes.count() == 1:
        yield
        return
    pulse = _meet()
    try:
        try:
            yield
            dist.barrier(group=_control)
            pulse.stop()
            dist.barrier(group=_control)  # until no process asks the store, which ends with rank 0
        except BaseException:
            interrupts.hush()  # a launcher ends the others when one of them has ended
            raise
    except BaseException as error:  # noqa: BLE001 (whatever it is, the others wait)
        raise pulse.agreed(error) from error.__cause__
    finally:
        pulse.stop()


def _meet() -> _Pulse:
    global _control
    count, missing = (
        processes.count(),
        [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR") if name not in os.environ],
    )
    if missing:
        raise ConfigError(
            f"the environment holds WORLD_SIZE={count}, but no {listing(missing)}",
            remedy="unset WORLD_SIZE, or start the command by a launcher, such as torchrun or accelerate launch",
        )
    gpus, here = torch.cuda.device_count(), processes.local_count()
    if 0 < gpus < here:
        raise ConfigError(
            f"{here} processes were started, but there are {gpus} GPUs here", remedy=f"start {gpus}, one for each GPU"
        )
    share_cores(here)
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")  # its new name came after torch 2.6
    try:
        PartialState(cpu=gpus == 0)  # nccl and this process's GPU, or gloo
        _control = dist.new_group(backend="gloo", timeout=_WAIT)
        dist.all_reduce(torch.ones(1, device="cpu" if gpus == 0 else "cuda"))  # nccl is set up by its first use
    except RuntimeError as error:
        raise _lost(error) from None
    return _Pulse()


def _lost(error: object) -> PipelineError:
    return _LostError(
        f"another of the {processes.count()} processes ended, or cannot be reached",
        got=str(error).splitlines()[0],
        remedy="see what it or its launcher printed, and with GPUs what NCCL_DEBUG=INFO in the environment shows "
        "(NCCL_P2P_DISABLE=1 helps where the cards cannot reach each other directly); "
        "the same command goes on from the last saved state",
    )


class _LostError(PipelineError):
    """Some of the processes cannot take part in an agreement any more."""


class _Pulse(threading.Thread):
    """Shows the others that this process lives, watches the next one, and passes on the error that one ended with.

    The first error becomes the verdict: an entry of the store that every process reads once a second. A process that
    does not stop by itself then, because it hangs in a call of a library, is ended.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._store, self._over = dist.distributed_c10d._get_default_store(), threading.Event()
        self._verdict: BaseException | None = None
        self._ending = False
        self.start()

    def stop(self) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        rank, count, missed, last = processes.rank(), processes.count(), 0, -1
        try:
            while self._verdict is None:
                if self._over.wait(_BEAT):
                    return
                self._store.add(f"pulse {rank}", 1)
                beat = self._store.add(f"pulse {(rank + 1) % count}", 0)
                missed, last = (missed + 1 if beat == last else 0), beat
                if missed == _MISSED:
                    self._publish(_lost(f"process {(rank + 1) % count} gives no sign of life"))
                if self._store.check(["verdict"]):
                    self._read()
        except RuntimeError as error:
            self._verdict = _lost(error)
        if not self._ending:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        if not self._over.wait(_GRACE):
            final = self._final(KeyboardInterrupt())
            if isinstance(final, PipelineError) and final.printed_here:
                sys.stderr.write(f"error: {final}\n")
            codes = {KeyboardInterrupt: interrupts.EXIT_CODE, SystemExit: 1}
            os._exit(codes.get(type(final), 2))

    def _publish(self, error: BaseException) -> bool:
        """Make `error` the verdict; False if there is one already."""
        kept = error if isinstance(error, PipelineError | KeyboardInterrupt) else SystemExit(1)
        text = base64.b64encode(pickle.dumps(kept)).decode()
        return self._store.compare_set("verdict", "", text).decode() == text

    def _read(self) -> None:
        self._verdict = pickle.loads(base64.b64decode(self._store.get("verdict")))  # noqa: S301 (as torch's objects)
        self._store.add("readers", 1)

    def agreed(self, error: BaseException) -> BaseException:
        """The exception that this process raises instead of `error`, when all have read the verdict."""
        self._ending = True
        if isinstance(error, RuntimeError) and _TRANSPORT.search(str(error)):
            error = _lost(error)
        error = refusal(error) or error
        own = False
        with contextlib.suppress(RuntimeError):
            own = self._publish(error)
        return error if own and not isinstance(error, PipelineError | KeyboardInterrupt) else self._final(error)

    def _final(self, error: BaseException) -> BaseException:
        """The verdict; where a process did not read it, that one is gone, which explains an interruption."""
        everybody, until = False, time.monotonic() + 5 * _BEAT
        with contextlib.suppress(RuntimeError):
            while not everybody and time.monotonic() < until:
                everybody = self._store.add("readers", 0) == processes.count()
                time.sleep(_BEAT / 20)
        verdict = self._verdict or error
        if isinstance(verdict, KeyboardInterrupt) and not everybody:
            verdict = _lost("a process does not answer")
        if isinstance(verdict, PipelineError) and verdict.printed_here is None:
            verdict.printed_here = processes.is_first()
            if isinstance(verdict, _LostError):
                verdict.printed_here = True
                with contextlib.suppress(RuntimeError):
                    verdict.printed_here = self._store.add("printed", 1) == 1
        return verdict
