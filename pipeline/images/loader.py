"""The walk over a dataset's batches, in worker processes or in this one: the same batches either way."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.errors import PipelineError

Batch = TypeVar("Batch")
Batches = Sequence[Sequence[Any]]

_SMALL = 2**16  # bytes


class Loader(Generic[Batch]):
    """Walks `batches`, lists of a dataset's keys, in their order; every `iter` walks them from the start.

    A `PipelineError` in a worker is raised here as it is. torch's global generator is left alone.

    Args:
        dataset: gives an item for a key; must be picklable where processes are spawned.
        batches: the keys of each batch.
        collate: makes one batch of a list of items.
        workers: processes that load; they live as long as the loader. 0: all in this process.
        pin_memory: copy batches to page-locked memory, from where a GPU fetches them faster.
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
        # The list itself is the sampler: changed in place, it is followed by workers that live on.
        self._batches = [list(keys) for keys in batches]
        self._loader: DataLoader[Any] = DataLoader(
            _Guarded(dataset, collate),
            batch_sampler=self._batches,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            worker_init_fn=_start_worker,
            # A fold's own process would else start them as it was started, and each would import everything anew.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            persistent_workers=workers > 0,
            # Else each walk would draw from the global generator, and a resumed run would differ.
            generator=torch.Generator(),
        )

    @property
    def batches(self) -> Batches:
        """May be set anew between two walks: the next epoch, or the rest of one that was interrupted."""
        return self._batches

    @batches.setter
    def batches(self, batches: Batches) -> None:
        self._batches[:] = [list(keys) for keys in batches]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._walk():
            if isinstance(batch, PipelineError):
                try:
                    raise batch
                finally:
                    # The error holds this frame, and the frame the error and the workers. Left to the garbage
                    # collector, that ring would cost a timeout of 5 s per worker at some later moment.
                    del batch
            yield batch

    def _walk(self) -> Iterator[Any]:
        try:
            for batch in self._loader:
                yield _unpacked(batch)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise PipelineError(
                "a process that loads images died",
                got=str(error).splitlines()[0],
                remedy="free some memory or lower train.workers; the same command goes on from what was saved",
            ) from error


class _Guarded(Dataset[Any]):
    """Makes whole batches, and hands a user's error over as a value: torch would re-raise it as another."""

    def __init__(self, dataset: Dataset[Any], collate: Callable[[list[Any]], Any]) -> None:
        self._dataset, self._collate = dataset, collate

    def __getitems__(self, keys: list[Any]) -> Any:
        try:
            return _packed(self._collate([self._dataset[key] for key in keys]))
        except PipelineError as error:
            return error


def _packed(batch: Any) -> Any:
    """A batch that is a named tuple, its small tables as arrays, which travel between processes inside the message.

    A tensor travels as shared memory, which takes a connection of its own: a millisecond, whatever its size.
    """
    return _changed(batch, _is_small_table, Tensor.numpy)


def _is_small_table(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim <= 2 and value.nbytes <= _SMALL


def _unpacked(batch: Any) -> Any:
    return _changed(batch, lambda value: isinstance(value, np.ndarray), torch.from_numpy)


def _changed(batch: Any, which: Callable[[Any], bool], change: Callable[[Any], Any]) -> Any:
    fields = batch._asdict() if hasattr(batch, "_asdict") else {}
    changed = {name: change(value) for name, value in fields.items() if which(value)}
    return batch._replace(**changed) if changed else batch


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(worker: int) -> None:  # noqa: ARG001
    cv2.setNumThreads(0)  # torch limits itself to one thread per worker, OpenCV does not
    # Ctrl-C reaches the whole process group; the main process ends its workers, without a traceback of each.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
