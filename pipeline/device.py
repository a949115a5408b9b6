"""Where the numbers are computed, and in which precision."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Literal

import torch

from pipeline.errors import ConfigError

Precision = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def resolve_precision(asked: str, device: torch.device) -> Precision:
    """What `train.precision` means on `device`.

    `auto` is bf16 where the GPU computes it natively, fp16 where not (T4, P100), float32 on a CPU.

    Raises:
        ConfigError: fp16 on a CPU, where its loss scaling has no support.
    """
    if asked == "fp16" and device.type == "cpu":
        raise ConfigError("train.precision=fp16 needs a GPU, but there is none here", remedy="set train.precision=auto")
    if asked == "fp32" or asked == "bf16" or asked == "fp16":
        return asked
    if device.type == "cpu":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision as a context; nothing happens under fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])
