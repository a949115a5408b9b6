"""Where the numbers are computed, and in which precision."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Literal, cast

import cv2
import torch

from pipeline.errors import ConfigError, PipelineError

Precision = Literal["fp32", "bf16", "fp16"]

_MOST_WORKERS = 8
_KEPT_BYTES = 2**30
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device() -> torch.device:
    """This process's GPU where there is one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def loading_workers(asked: int | Literal["auto"], device: torch.device, *, beside: int = 1) -> int:
    """How many processes load images, by `train.workers`: 0 where the training's own does.

    `auto` is on a GPU what the cores give each of `beside` trainings, on a CPU none: a CPU that trains has no core
    to spare, and loading in the same process is faster there.
    """
    if asked != "auto":
        return asked
    if device.type == "cpu":
        return 0
    return min(_MOST_WORKERS, max(1, (os.cpu_count() or 1) // beside - 1))


@contextlib.contextmanager
def explained_memory_errors(
    remedy: str = "halve train.batch_size and double train.accumulate, lower predict.batch_size or images.size, "
    "or train fewer folds side by side (train.parallel_folds)",
) -> Iterator[None]:
    """Raise a full GPU as a PipelineError that names the keys to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PipelineError(
            "the GPU's memory is full",
            got=str(error).splitlines()[0],
            remedy=remedy,
        ) from None


def resolve_precision(asked: str, device: torch.device) -> Precision:
    """What `train.precision` means on `device`.

    `auto` is bf16 where the GPU computes it natively, fp16 where not (T4, P100), float32 on a CPU.

    Raises:
        ConfigError: fp16 on a CPU, where its loss scaling has no support.
    """
    if asked == "fp16" and device.type == "cpu":
        raise ConfigError("train.precision=fp16 needs a GPU, but there is none here", remedy="set train.precision=auto")
    if asked in ("fp32", "bf16", "fp16"):
        return cast(Precision, asked)
    if device.type == "cpu":
        return "fp32"  # bf16 speeds some networks up (ResNet-50 1.7x) and slows others down (EfficientNet-Lite0 0.7x)
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step instead of returning it to the system.

    By default glibc returns large blocks at once; a training step on the CPU then spends up to a third of its time in
    the kernel. The environment's own settings of the allocator win; other C libraries are left as they are.
    """
    settings = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}  # numbers of mallopt, from malloc.h
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version") and "glibc.malloc" not in os.environ.get("GLIBC_TUNABLES", ""):
        for name, parameter in settings.items():
            if name not in os.environ:
                libc.mallopt(parameter, _KEPT_BYTES)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision as a context; nothing happens under fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def use_threads(count: int) -> None:
    """Compute with so many threads in this process, by torch and by OpenCV."""
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def share_cores(beside: int) -> None:
    """One of `beside` processes on this machine takes its share of the cores, or what OMP_NUM_THREADS says."""
    if "OMP_NUM_THREADS" in os.environ:
        use_threads(torch.get_num_threads())  # torch has read it when it was loaded, OpenCV never does
        return
    threads = max(1, (os.cpu_count() or 1) // beside)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # or Accelerate takes a number of its own
    use_threads(threads)
