"""The loop: objects in, numbers out. It knows no config, no files and no competition."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import nn

from pipeline.errors import PipelineError
from pipeline.images.dataset import TrainBatch
from pipeline.training.ema import WarmEma
from pipeline.training.losses import MultiLabelLoss, known_cells


class TrainingError(PipelineError):
    """Training cannot go on with these settings."""


class Step(NamedTuple):
    """One optimizer step, for whoever watches."""

    loss: float  # mean over the known cells of the step's images
    lr: float
    images: int


def train_epoch(
    batches: Iterable[TrainBatch],
    *,
    model: nn.Module,
    ema: WarmEma,
    normalizer: nn.Module,
    loss_function: MultiLabelLoss,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    accelerator: Accelerator,
    accumulate: int,
    clip_grad: float | None,
    on_step: Callable[[Step], None],
) -> float:
    """One pass over `batches`, an optimizer step every `accumulate` of them; the mean loss of the epoch.

    The loss of a step is summed over its micro-batches and divided by all their known cells, so that
    accumulation equals one large batch, also where cells are unknown or the last batch is short.

    Args:
        batches: micro-batches on the host.
        model: gives logits (B, K); prepared by `accelerator`, as is `optimizer`.
        ema: averages the unprepared model.
        clip_grad: the largest gradient norm, or None.
        on_step: called after each optimizer step.

    Raises:
        TrainingError: the loss is not finite.
    """
    model.train()
    total, cells = 0.0, 0
    for group in _grouped(batches, accumulate):
        known = int(sum(known_cells(targets) for _, targets, _ in group))
        step_loss = torch.zeros((), device=accelerator.device)
        for position, (images, targets, _) in enumerate(group, start=1):
            syncing = contextlib.nullcontext() if position == len(group) else accelerator.no_sync(model)
            with syncing:
                logits = model(normalizer(images.to(accelerator.device, non_blocking=True)))
                target = targets.to(accelerator.device, non_blocking=True)
                loss = loss_function(logits, target, reduction="sum") / max(known, 1)
                accelerator.backward(loss)
            step_loss += loss.detach()
        if clip_grad is not None:
            accelerator.clip_grad_norm_(model.parameters(), clip_grad)
        lr = float(schedule.get_last_lr()[0])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ema.update(accelerator.unwrap_model(model), step=schedule.last_epoch)
        schedule.step()

        value = _finite(step_loss.item(), step=schedule.last_epoch, lr=lr)
        total, cells = total + value * known, cells + known
        on_step(Step(loss=value, lr=lr, images=sum(len(images) for images, _, _ in group)))
    return total / max(cells, 1)


def _grouped(batches: Iterable[TrainBatch], size: int) -> Iterator[list[TrainBatch]]:
    remaining = iter(batches)
    while group := list(itertools.islice(remaining, size)):
        yield group


def _finite(loss: float, *, step: int, lr: float) -> float:
    if math.isfinite(loss):
        return loss
    raise TrainingError(
        f"the loss became {loss} at optimizer step {step} (learning rate {lr:.2e})",
        remedy="lower train.lr, set train.clip_grad, or set train.precision=fp32; "
        "the same command goes on from the last finished epoch, --fresh starts over",
    )
