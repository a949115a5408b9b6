from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing import resource_sharer
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.competition.paths import ImagePaths
from pipeline.errors import ImageError, RunError
from pipeline.images import loader as loader_module
from pipeline.images.augmentation.albumentations_adapter import Spec
from pipeline.images.augmentation.augment import build_augmentation
from pipeline.images.dataset import (
    EvalBatch,
    EvalImages,
    TrainBatch,
    TrainImages,
    epoch_batches,
    eval_loader,
    train_loader,
)
from pipeline.images.geometry import ImageForm
from pipeline.images.loader import Loader
from pipeline.images.readers import DecodedSource

FORM = ImageForm((16, 16), "stretch", 3)
IDS = [str(number) for number in range(12)]
Write = Callable[[int], list[ImagePaths]]
Keys = list[list[tuple[int, int]]]


@pytest.fixture
def images(write_images: Write) -> TrainImages:
    specs: list[Spec] = [
        {"GaussNoise": {"p": 0.8}},
        {"OneOf": {"transforms": [{"Blur": None}, {"HorizontalFlip": None}]}},
    ]
    return TrainImages(
        DecodedSource(write_images(12), FORM),
        IDS,
        np.eye(12, 4, dtype=np.float32),
        augmentation=build_augmentation(specs, size=FORM.size, channels=3),
        seed=0,
    )


def batches_of(epoch: int) -> Keys:
    return epoch_batches(range(12), IDS, epoch=epoch, seed=0, batch_size=4)


def contents(loader: Loader[TrainBatch]) -> list[list[bytes]]:
    return [[part.contiguous().numpy().tobytes() for part in batch] for batch in loader]


def test_any_number_of_workers_gives_the_same_bytes(images: TrainImages) -> None:
    """Promise 7, for two epochs of one loader, whose workers live on, and for a loader per epoch."""
    alone = [contents(train_loader(images, batches_of(epoch), workers=0, pin_memory=False)) for epoch in (0, 1)]
    assert alone[0] != alone[1]
    for workers in (1, 2):
        loader = train_loader(images, batches_of(0), workers=workers, pin_memory=False)
        assert len(loader) == 3
        together = [contents(loader)]
        loader.batches = batches_of(1)
        together.append(contents(loader))
        assert together == alone


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_begin_in_the_middle_and_end_early(images: TrainImages, workers: int) -> None:
    loader = train_loader(images, batches_of(0), workers=workers, pin_memory=False)
    whole = contents(loader)
    next(iter(loader))
    assert contents(loader) == whole
    loader.batches = batches_of(0)[1:]
    assert contents(loader) == whole[1:]


@pytest.mark.parametrize("workers", [0, 2])
def test_worker_batches_keep_their_layout(images: TrainImages, workers: int) -> None:
    for batch in train_loader(images, batches_of(0), workers=workers, pin_memory=False):
        assert isinstance(batch, TrainBatch)
        assert batch.images.shape == (4, 3, 16, 16)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


def loaded_until_error(loader: Loader[EvalBatch]) -> tuple[list[int], ImageError]:
    seen: list[int] = []
    try:
        for batch in loader:
            seen += batch.indices.tolist()
    except ImageError as error:
        return seen, error.with_traceback(None)
    raise AssertionError("no error came")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_error_arrives_as_it_was_raised(write_images: Write, workers: int) -> None:
    paths = write_images(4)
    paths[2][0].unlink()
    images = EvalImages(paths, forms=[FORM])
    loader = eval_loader(images, range(4), batch_size=1, workers=workers, pin_memory=False)
    for _ in range(2):  # the loader still works
        seen, error = loaded_until_error(loader)
        assert seen == [0, 1]
        assert error.problem == f"image {paths[2][0]} does not exist"
        assert error.remedy.startswith("check the image folder")


def test_an_error_does_not_keep_the_workers_alive(write_images: Write) -> None:
    paths = write_images(2)
    paths[1][0].unlink()
    images = EvalImages(paths, forms=[FORM])
    before = set(multiprocessing.active_children())
    gc.disable()
    try:
        with contextlib.suppress(ImageError):
            list(eval_loader(images, range(2), batch_size=1, workers=1, pin_memory=False))
        assert not set(multiprocessing.active_children()) - before
    finally:
        gc.enable()


class Killed(Dataset[int]):
    """Kills its process, while the loader waits: torch raises in whatever the main thread does at that moment."""

    def __getitem__(self, key: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return key


def test_a_worker_that_dies_is_an_error_with_a_remedy() -> None:
    with pytest.raises(RunError, match=r"loads images died(.|\n)*lower train\.workers"):
        list(Loader(Killed(), [[0]], list, workers=1, pin_memory=False))


def test_a_worker_that_dies_between_two_batches_is_an_error_of_the_next_one_only(images: TrainImages) -> None:
    batches = iter(train_loader(images, batches_of(0), workers=1, pin_memory=False))
    next(batches)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    for _ in range(1000):  # torch's handler of SIGCHLD would raise here
        time.sleep(0)
    with pytest.raises(RunError, match=r"loads images died"):
        next(batches)


def unsendable(items: list[list[int]]) -> object:
    return lambda: items


def test_a_batch_that_cannot_be_sent_is_not_awaited_for_ever() -> None:
    with pytest.raises(RunError, match=r"loads images died"):
        list(Loader(Surroundings(), [[0]], unsendable, workers=1, pin_memory=False))


def fail(_: list[list[int]]) -> object:
    raise RuntimeError("a bug")


def test_an_error_of_our_own_in_a_worker_keeps_its_name() -> None:
    with pytest.raises(RuntimeError, match="Caught RuntimeError in DataLoader worker"):
        list(Loader(Surroundings(), [[0]], fail, workers=1, pin_memory=False))


def no_room(_: Tensor) -> Tensor:
    raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")


def test_without_room_in_shared_memory_the_batches_are_the_same(
    images: TrainImages, write_images: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "_SMALL", 8)  # targets, too
    alone = list(train_loader(images, batches_of(0), workers=0, pin_memory=False))
    monkeypatch.setattr(Tensor, "share_memory_", no_room)  # the workers are forks of this process
    together = list(train_loader(images, batches_of(0), workers=1, pin_memory=False))
    for one, other in zip(alone, together, strict=True):
        assert all(a.equal(b) and a.stride() == b.stride() for a, b in zip(one, other, strict=True))
    views = EvalImages(write_images(2), forms=[FORM, FORM._replace(size=(8, 8))])
    (batch,) = eval_loader(views, range(2), batch_size=2, workers=1, pin_memory=False)
    assert [view.shape for view in batch.images] == [(2, 3, 16, 16), (2, 3, 8, 8)]


@pytest.mark.parametrize("workers", [0, 2])
def test_torchs_global_generator_is_left_alone(images: TrainImages, workers: int) -> None:
    before = torch.get_rng_state()
    contents(train_loader(images, batches_of(0), workers=workers, pin_memory=False))
    assert torch.equal(torch.get_rng_state(), before)


class Surroundings(Dataset[list[int]]):
    """Its items describe the process: number, threads of torch and OpenCV, whether it ignores both signals."""

    def __getitem__(self, key: int) -> list[int]:
        ignored = signal.pthread_sigmask(signal.SIG_BLOCK, []) >= {signal.SIGINT, signal.SIGTERM}
        return [os.getpid(), torch.get_num_threads(), cv2.getNumThreads(), int(ignored)]


def first(items: list[list[int]]) -> list[int]:
    return items[0]


def test_workers_are_other_processes_with_one_thread_that_leave_ctrl_c_to_the_parent() -> None:
    loader = Loader(Surroundings(), [[0], [0]], first, workers=2, pin_memory=False)
    seen = list(loader)
    assert len({process for process, *_ in seen} - {os.getpid()}) == 2
    assert [state for _, *state in seen] == [[1, 1, 1], [1, 1, 1]]
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def share_with_a_reader_that_goes() -> None:
    loader_module._start_worker(0)
    shared: Any = resource_sharer.DupFd(0)
    for peeked in (socket.MSG_PEEK, 0):  # where bytes are left unread, the connection is reset
        with socket.socket(socket.AF_UNIX) as reader:
            reader.connect(shared._id[0])
            reader.recv(1000, peeked)
    os.close(shared.detach())  # served after the others


def test_a_worker_whose_reader_was_interrupted_prints_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    process = multiprocessing.get_context("fork").Process(target=share_with_a_reader_that_goes)
    process.start()
    process.join(30)
    assert (process.exitcode, capfd.readouterr().err) == (0, "")
