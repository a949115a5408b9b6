"""AdamW, the schedule of learning rates as a pure function of the step, and the average of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from pipeline.model.backbone import Backbone

Schedule = Literal["onecycle", "cosine"]

_ONECYCLE_START, _ONECYCLE_END = 1 / 25, 1 / 25e4  # PyTorch's div_factor and final_div_factor


def build_optimizer(
    model: nn.Module, *, lr: float, weight_decay: float, backbone_lr: float | None = None, layer_decay: float = 1.0
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; norms, biases (one-dimensional) and label queries do not decay.

    Args:
        model: its backbone, where it has one, may learn at other rates.
        lr: the peak rate.
        weight_decay: decoupled, of the parameters that decay.
        backbone_lr: the peak rate of the backbone; `lr` if None.
        layer_decay: factor on the backbone's rate for each layer further from the head, as timm counts layers
            (Clark et al. 2020, ELECTRA); 1 for none.
    """
    rates = _backbone_rates(model, lr=lr if backbone_lr is None else backbone_lr, layer_decay=layer_decay)
    groups: dict[tuple[float, float], list[torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = weight_decay if _decays(name, parameter) else 0.0
            groups.setdefault((rates.get(name, lr), decay), []).append(parameter)
    everything = [parameter for parameters in groups.values() for parameter in parameters]
    return torch.optim.AdamW(
        [{"params": each, "lr": rate, "weight_decay": decay} for (rate, decay), each in groups.items()],
        lr=lr,
        fused=_can_fuse(everything),
    )


def _backbone_rates(model: nn.Module, *, lr: float, layer_decay: float) -> dict[str, float]:
    """The peak rate of each of the backbone's parameters, by its name in `model`."""
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, Backbone):
        return {}
    layers = backbone.layers()
    return {
        f"backbone.{name}": lr * layer_decay ** (len(layers) - 1 - depth)
        for depth, names in enumerate(layers)
        for name in names
    }


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


class WarmEma(ModelEmaV3):
    """timm's average of all parameters and buffers, with decay min(decay, (1 + t) / (10 + t)) at update t.

    The warm-up (as in TensorFlow's ExponentialMovingAverage with `num_updates`) lets the average follow the
    weights closely in the first steps, so that short trainings are not held back by their random start.
    """

    def get_decay(self, step: int | None = None) -> float:
        """The decay of update number `step`, counted from 0."""
        assert step is not None, "the warm-up needs the number of the update"
        return float(min(self.decay, (1 + step) / (10 + step)))
