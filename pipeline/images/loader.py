"""Loads the batches of a dataset, in worker processes or in this one, with equal results."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import queues
from types import FrameType
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from pipeline import interrupts
from pipeline.errors import PipelineError, RunError

Batch = TypeVar("Batch")
Batches = Sequence[Sequence[Any]]

_SMALL = 2**16  # bytes
_LOST = ("DataLoader worker (pid", "Too many open files", "received 0 items", "can't start new thread")


class Loader(Generic[Batch]):
    """An iterable over `batches`, lists of a dataset's keys, in their order; every `iter` begins at the first.

    A `PipelineError` in a worker is raised unchanged. torch's global generator is not used. A worker that dies, or
    that cannot be started, is a `RunError` of the next batch.

    Args:
        dataset: returns an item for a key; must be picklable where processes are spawned.
        batches: the keys of each batch.
        collate: makes a batch of a list of items.
        workers: processes that load; they live as long as the loader. 0: this process loads.
        pin_memory: copy batches to page-locked memory, which a GPU reads faster.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batches: Batches,
        collate: Callable[[list[Any]], Batch],
        *,
        workers: int,
        pin_memory: bool,
    ) -> None:
        # The list itself is the sampler: workers that live on follow its changes.
        self._batches = [list(keys) for keys in batches]
        self._loader: DataLoader[Any] = DataLoader(
            _Guarded(dataset, collate),
            batch_sampler=self._batches,
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=pin_memory,
            worker_init_fn=_start_worker,
            # A spawned process would otherwise spawn its workers, and each would import everything again.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            persistent_workers=workers > 0,
            # Otherwise each iteration would draw from the global generator, and a resumed run would differ.
            generator=torch.Generator(),
        )

    @property
    def batches(self) -> Batches:
        """The keys of each batch; set them between two iterations, for the next epoch or the rest of one."""
        return self._batches

    @batches.setter
    def batches(self, batches: Batches) -> None:
        self._batches[:] = [list(keys) for keys in batches]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._load():
            if isinstance(batch, PipelineError):
                try:
                    raise batch
                finally:
                    # The error refers to this frame, and the frame to the error and the workers. If the garbage
                    # collector had to end this cycle, each worker would cost a timeout of 5 s later.
                    del batch
            yield batch

    def _load(self) -> Iterator[Any]:
        batches = None
        try:
            with (
                interrupts.blocked(),
                _watch.waiting(),
            ):  # Ctrl-C reaches the whole group; this process ends its workers
                batches = iter(self._loader)
            if self._loader.num_workers:
                _watch.install()
            while True:
                with _watch.waiting():
                    batch = next(batches, None)
                if batch is None:
                    return
                interrupts.check()
                yield _changed(batch, _received)
        except (OSError, EOFError, RuntimeError) as error:
            if not self._loader.num_workers or not _is_lost(error):
                raise
            if batches is not None:
                batches._shutdown = True  # type: ignore[attr-defined]  # torch would wait for locks and half-sent batches of the dead worker
            interrupts.end_children()
            raise RunError(
                "a process that loads images died, or cannot be reached",
                got=str(error).splitlines()[0] if str(error) else type(error).__name__,
                remedy="free some memory, lower train.workers, or set it to 0; the same command goes on from what was "
                "saved",
            ) from error


def _is_lost(error: Exception) -> bool:
    """Whether a worker died, could not be started or could not be reached; false for an error raised in its code."""
    own = str(error).startswith("Caught ")  # torch's words
    return not own and (not isinstance(error, RuntimeError) or str(error).startswith(_LOST))


class _Watch:
    """Lets torch raise for a dead worker only while a batch is awaited, not in whatever the main thread does then."""

    def __init__(self) -> None:
        self._raise: Callable[[int, FrameType | None], Any] = lambda *_: None
        self._waiting = False

    def install(self) -> None:
        """Take the place of torch's handler of SIGCHLD, which it has set when its first workers started."""
        current = signal.getsignal(signal.SIGCHLD)
        if callable(current) and current != self._notice:
            self._raise = current
            signal.signal(signal.SIGCHLD, self._notice)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """In the block a dead worker raises RuntimeError, also one that died before."""
        self._waiting = True
        try:
            self._raise(signal.SIGCHLD, None)
            yield
        finally:
            self._waiting = False

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if self._waiting:
            self._raise(number, frame)


_watch = _Watch()


class _Guarded(Dataset[Any]):
    """Makes whole batches, and returns a PipelineError as a value: torch would raise another error."""

    def __init__(self, dataset: Dataset[Any], collate: Callable[[list[Any]], Any]) -> None:
        self._dataset, self._collate = dataset, collate

    def __getitems__(self, keys: list[Any]) -> Any:
        try:
            return _changed(self._collate([self._dataset[key] for key in keys]), _sent)
        except PipelineError as error:
            return error


def _sent(tensor: Tensor) -> Tensor | NDArray[Any]:
    """A tensor as a worker sends it: small tables and what finds no room in shared memory as arrays, in the message.

    A tensor is sent as shared memory, which takes a connection of its own and thus a millisecond, whatever its size.
    It moves there now: where that is full, torch's own attempt would lose the batch, which is then awaited for ever.
    """
    if tensor.ndim <= 2 and tensor.nbytes <= _SMALL:
        return tensor.numpy()
    if get_worker_info() is None:
        return tensor
    try:
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError:
        # An array of images is sent as it lies in memory, in the order B, H, W, C.
        return (tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor).numpy()
    return tensor


def _received(sent: Tensor | NDArray[Any]) -> Tensor:
    if isinstance(sent, Tensor):
        return sent
    tensor = torch.from_numpy(sent)
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor


def _changed(batch: Any, change: Callable[[Any], Any]) -> Any:
    """A batch (a named tuple), with `change` of each of its tensors or arrays, also of those in a tuple."""
    if isinstance(batch, Tensor | np.ndarray):
        return change(batch)
    if isinstance(batch, tuple):
        values = [_changed(value, change) for value in batch]
        return batch._make(values) if hasattr(batch, "_make") else tuple(values)
    return batch


def _unchanged(batch: Any) -> Any:
    return batch


def _start_worker(worker: int) -> None:  # noqa: ARG001
    cv2.setNumThreads(0)  # torch limits itself to one thread per worker, OpenCV does not
    # The thread that hands over shared memory prints what it meets when this command is interrupted meanwhile.
    hook = sys.excepthook
    sys.excepthook = lambda kind, *more: None if issubclass(kind, (ConnectionError, EOFError)) else hook(kind, *more)
    # A batch that cannot be sent, for lack of file handles, would be lost and awaited for ever.
    queues.Queue._on_queue_feeder_error = staticmethod(lambda _error, _batch: os._exit(1))  # type: ignore[attr-defined]
