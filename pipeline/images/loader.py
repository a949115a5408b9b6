"""Loads the batches of a dataset, in worker processes or in this one, with equal results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline import interrupts
from pipeline.errors import PipelineError

Batch = TypeVar("Batch")
Batches = Sequence[Sequence[Any]]

_SMALL = 2**16  # bytes


class Loader(Generic[Batch]):
    """An iterable over `batches`, lists of a dataset's keys, in their order; every `iter` begins at the first.

    A `PipelineError` in a worker is raised unchanged. torch's global generator is not used.

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
        try:
            with interrupts.blocked():  # Ctrl-C reaches the whole process group; this process ends its workers
                batches = iter(self._loader)
            for batch in batches:
                interrupts.check()
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
    """Makes whole batches, and returns a PipelineError as a value: torch would raise another error."""

    def __init__(self, dataset: Dataset[Any], collate: Callable[[list[Any]], Any]) -> None:
        self._dataset, self._collate = dataset, collate

    def __getitems__(self, keys: list[Any]) -> Any:
        try:
            return _packed(self._collate([self._dataset[key] for key in keys]))
        except PipelineError as error:
            return error


def _packed(batch: Any) -> Any:
    """Turn the small tensors of a batch (a named tuple) into arrays, which a worker sends inside its message.

    A tensor is sent as shared memory, which takes a connection of its own and thus a millisecond, whatever its size.
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


def _unchanged(batch: Any) -> Any:
    return batch


def _start_worker(worker: int) -> None:  # noqa: ARG001
    cv2.setNumThreads(0)  # torch limits itself to one thread per worker, OpenCV does not
