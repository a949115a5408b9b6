"""The error of a training whose numbers are not finite: images, first bad layer, remedy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError, listing
from pipeline.images.dataset import TrainBatch
from pipeline.training.distributed import gather

_NAMED_IDS = 8


class TrainingError(PipelineError):
    """Training cannot go on with these settings."""


def is_finite(loss: float, norm: Tensor | None, *, scaled: bool) -> bool:
    """Whether the loss is finite, and the `norm` of the gradient, where it was computed.

    Under the scaler of fp16 (`scaled`) a gradient may overflow: the scaler leaves the step out and lowers its
    scale.
    """
    return math.isfinite(loss) and (scaled or norm is None or math.isfinite(float(norm)))


class _Seen(NamedTuple):
    """A step as one process saw it."""

    loss: float
    layer: str | None  # the first bad one, in words
    ids: list[str]


def non_finite(
    loss: float,
    group: Sequence[TrainBatch],
    *,
    model: nn.Module,
    normalizer: nn.Module,
    step: int,
    lr: float,
    name_of: Callable[[int], str],
) -> TrainingError:
    """The error for a step whose `loss` or gradient is not finite: its images, and the first bad layer.

    With several processes, the images are those of the processes whose own numbers went bad; synchronized batch norms
    spread bad numbers to all.
    """
    ids = [name_of(int(index)) for batch in group for index in batch.indices]
    for norm in (module for module in model.modules() if isinstance(module, nn.SyncBatchNorm)):
        norm.eval()  # each process searches for itself
    layer = first_bad_layer(model, normalizer, group)
    seen = gather(_Seen(loss, layer, ids))
    worst = [each for each in seen if each.layer] or [each for each in seen if not math.isfinite(each.loss)] or seen
    bad_loss = next((each.loss for each in worst if not math.isfinite(each.loss)), None)
    what = "the gradient is not finite" if bad_loss is None else f"the loss became {bad_loss}"
    layer = worst[0].layer
    return TrainingError(
        f"{what} at optimizer step {step + 1} (learning rate {lr:.2e})",
        expected="finite numbers",
        got=f"{layer or 'every layer gives finite numbers, so the targets or the loss are at fault'}; "
        f"images {listing([id_ for each in worst for id_ in each.ids], _NAMED_IDS)}",
        remedy="lower train.lr, set train.clip_grad, or set train.precision=fp32; "
        "the same command goes on from the last saved state, --fresh starts over",
    )


@torch.no_grad()
def first_bad_layer(model: nn.Module, normalizer: nn.Module, group: Sequence[TrainBatch]) -> str | None:
    """In words, the first layer whose output is not finite on these images; None if all outputs are."""
    found: list[str] = []

    def hook_of(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def hook(layer: nn.Module, _inputs: tuple[object, ...], output: object) -> None:
            if not found and isinstance(output, Tensor) and not output.isfinite().all():
                found.append(_describe(name, layer))

        return hook

    layers = [(name, layer) for name, layer in model.named_modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(hook_of(name)) for name, layer in layers]
    try:
        device = next(model.parameters()).device
        for batch in group:
            model(normalizer(batch.images.to(device)))
            if found:
                return found[0]
    finally:
        for handle in handles:
            handle.remove()
    return None


def _describe(name: str, layer: nn.Module) -> str:
    bad = [part for part, value in [*layer.named_parameters(), *layer.named_buffers()] if not value.isfinite().all()]
    cause = f"its {listing(bad)} are not finite" if bad else "its numbers overflow"
    return f"layer '{name}' ({type(layer).__name__}) goes bad first: {cause}"
