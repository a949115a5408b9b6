"""The device, its precision, and the numbers of threads and loading processes."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Literal, cast

import cv2
import joblib
import torch

from pipeline.errors import ConfigError, PipelineError

Precision = Literal["fp32", "bf16", "fp16"]

_MOST_WORKERS = 8
_KEPT_BYTES = 2**30
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device() -> torch.device:
    """The GPU of this process, or the CPU where there is none."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def loading_workers(asked: int | Literal["auto"], device: torch.device, *, beside: int = 1) -> int:
    """The number of processes that load images, by `train.workers`; with 0 the training process loads them.

    On a GPU `auto` divides the cores among `beside` trainings. On a CPU it is 0: training uses all cores, and loading
    in the same process is faster.
    """
    if asked != "auto":
        return asked
    if device.type == "cpu":
        return 0
    cores: int = joblib.cpu_count()
    return min(_MOST_WORKERS, max(1, cores // beside - 1))


def free_shared_memory() -> float:
    """The free bytes of /dev/shm, by which processes send each other batches; infinite where a system has none."""
    try:
        return shutil.disk_usage("/dev/shm").free  # noqa: S108
    except OSError:
        return math.inf


@contextlib.contextmanager
def explained_memory_errors(
    remedy: str = "halve train.batch_size and double train.accumulate, lower predict.batch_size or images.size, "
    "or train fewer folds side by side (train.parallel_folds)",
) -> Iterator[None]:
    """Raise a PipelineError that names the keys to lower when the GPU's memory is full."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PipelineError(
            "the GPU's memory is full",
            got=str(error).splitlines()[0],
            remedy=remedy,
        ) from None


def resolve_precision(asked: str, device: torch.device) -> Precision:
    """The precision on `device` by `train.precision`.

    `auto` is bf16 on a GPU that computes it natively, fp16 on any other (T4, P100), and float32 on a CPU.

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
    """Mixed precision as a context; does nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def use_threads(count: int) -> None:
    """Set the number of threads of torch and OpenCV in this process."""
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def share_cores(beside: int) -> None:
    """Use OMP_NUM_THREADS threads, or where it is not set, a share of the cores for each of `beside` processes."""
    if "OMP_NUM_THREADS" in os.environ:
        use_threads(torch.get_num_threads())  # torch read the variable at its import, OpenCV does not read it
        return
    threads = max(1, joblib.cpu_count() // beside)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # otherwise Accelerate sets a number of its own
    use_threads(threads)
