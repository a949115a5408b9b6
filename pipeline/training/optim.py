"""AdamW with decay only where it belongs, and learning rates as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

Schedule = Literal["onecycle", "cosine"]

_ONECYCLE_START, _ONECYCLE_END = 1 / 25, 1 / 25e4  # PyTorch's div_factor and final_div_factor


def build_optimizer(model: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; norms, biases (one-dimensional) and label queries do not decay."""
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    plain = [parameter for name, parameter in trainable if not _decays(name, parameter)]
    decayed = [parameter for name, parameter in trainable if _decays(name, parameter)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, fused=_can_fuse(plain + decayed))


def _decays(name: str, parameter: torch.Tensor) -> bool:
    return parameter.ndim > 1 and "query_embed" not in name


def _can_fuse(parameters: Iterable[torch.Tensor]) -> bool:
    return all(parameter.device.type in ("cuda", "cpu") for parameter in parameters)


def lr_factor(step: int, *, total: int, warmup: float, schedule: Schedule) -> float:
    """The factor on the peak learning rate at optimizer step `step` of `total` (0 to total - 1).

    `onecycle` rises by a cosine from 1/25 over the share `warmup` of all steps and falls by a cosine to
    1/25e4, as torch.optim.lr_scheduler.OneCycleLR does (Smith & Topin 2018) without its momentum cycle;
    `cosine` rises linearly and falls by a cosine to 0. A step past the end keeps the last value.
    """
    last = max(total - 1, 1)
    peak = warmup * total - 1
    step = min(step, last)
    rising = step < peak
    if schedule == "onecycle":
        start, end = _ONECYCLE_START, _ONECYCLE_END
        if rising:
            return start + (1 - start) * (1 - math.cos(math.pi * step / peak)) / 2
    else:
        end = 0.0
        if rising:
            return (step + 1) / (peak + 1)
    progress = (step - max(peak, 0.0)) / max(last - max(peak, 0.0), 1e-12)
    return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2


def build_schedule(
    optimizer: torch.optim.Optimizer, *, total: int, warmup: float, schedule: Schedule
) -> torch.optim.lr_scheduler.LambdaLR:
    """A scheduler to be stepped once per optimizer step; see `lr_factor`."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: lr_factor(step, total=total, warmup=warmup, schedule=schedule)
    )
