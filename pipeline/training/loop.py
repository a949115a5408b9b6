"""The loop: objects in, numbers out. It knows no config, no files and no competition."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pipeline import processes
from pipeline.images.dataset import TrainBatch
from pipeline.training.losses import MultiLabelLoss, known_cells
from pipeline.training.mixing import BatchMixer, Mix
from pipeline.training.non_finite import TrainingError, is_finite, non_finite
from pipeline.training.optim import WarmEma

SMALLEST_PART = 2  # images that a batch norm needs at least
Say = Callable[[str], None]


class Step(NamedTuple):
    """One optimizer step, for whoever watches."""

    loss: float  # mean over the known cells of the step's images
    lr: float
    images: int


@dataclass
class EpochSums:
    """What an epoch has added up so far; saved with a state in the middle of it, and gone on from."""

    loss: float = 0.0  # over all known cells
    cells: int = 0
    steps: int = 0
    skipped: int = 0  # steps that the scaler of fp16 left out because a gradient overflowed
    images: int = 0
    seconds: float = 0.0

    def add(self, *, loss: float, cells: int, images: int, skipped: bool) -> None:
        """Count a step whose mean loss over `cells` known cells was `loss`."""
        self.loss, self.cells = self.loss + loss * cells, self.cells + cells
        self.steps, self.images = self.steps + 1, self.images + images
        self.skipped += skipped

    @property
    def mean_loss(self) -> float:
        """Over the known cells."""
        return self.loss / max(self.cells, 1)


@dataclass
class Learner:
    """A network and all that a step changes it by.

    Attributes:
        prepared: gives logits (B, K) of normalised images; wrapped by `accelerator`, as is `optimizer`.
        ema: averages the network under the wrapping.
        normalizer: from what a batch holds to what the network reads, on the device.
        accumulate: micro-batches of an optimizer step.
        clip_grad: the largest gradient norm, or None.
        mixer: mixes the images of a micro-batch with each other, or None.
    """

    accelerator: Accelerator
    prepared: nn.Module
    ema: WarmEma
    normalizer: nn.Module
    loss_function: MultiLabelLoss
    optimizer: Any  # Accelerate's wrapper around a torch optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    accumulate: int = field(default=1, kw_only=True)
    clip_grad: float | None = field(default=None, kw_only=True)
    mixer: BatchMixer | None = field(default=None, kw_only=True)


def train_epoch(
    batches: Iterable[TrainBatch],
    learner: Learner,
    *,
    sums: EpochSums,
    seed_of: Callable[[int], int],
    on_step: Callable[[Step], bool],
    say: Say,
    name_of: Callable[[int], str] = str,
) -> bool:
    """One pass over `batches`, an optimizer step every `learner.accumulate` of them, added up in `sums`.

    The loss of a step is summed over its micro-batches and divided by all their known cells, so that
    accumulation equals one large batch, also where cells are unknown or the last batch is short. What is drawn
    in a step (dropout, mixing) is a function of `seed_of` and its number: a training that goes on in the middle
    of an epoch draws the same. Where memory runs out, micro-batches are cut in halves and the step is repeated.

    Several processes each walk their own part of every batch. What counts is all of it: the known cells, the loss
    and the gradient are added up, so that the step is that of one process with the whole batch.

    Args:
        batches: micro-batches on the host; the rest of the epoch, where `sums` holds its beginning. As many in
            every process, of one size, with an image for each of them.
        learner: changed in place.
        sums: of the epoch so far, added to in place.
        seed_of: optimizer step, from 0 over all epochs, to the seed of all that is drawn in it.
        on_step: called after each optimizer step; False stops the epoch there.
        say: told in a sentence what a person should know.
        name_of: a row's name, for messages.

    Returns:
        Whether the epoch came to its end.

    Raises:
        TrainingError: the loss or the gradient is not finite; weights, average and `sums` are as before the step.
    """
    learner.prepared.train()
    backward = _Backward(learner, say)
    for group in _grouped(batches, learner.accumulate):
        number, lr = learner.schedule.last_epoch, float(learner.schedule.get_last_lr()[0])
        seed = seed_of(number)
        mixed = [_mixed(batch, learner.mixer, seed=seed, position=place) for place, batch in enumerate(group)]
        own_cells = int(sum(known_cells(targets) for _, _, targets in mixed))
        known, images = map(int, processes.total(own_cells, sum(len(batch.images) for batch in group)))
        own_loss, loss = backward(mixed, known, seed=seed)
        if not is_finite(loss, _clipped_norm(learner), scaled=learner.accelerator.scaler is not None):
            learner.optimizer.zero_grad(set_to_none=True)
            model, normalizer = learner.prepared, learner.normalizer
            raise non_finite(own_loss, group, model=model, normalizer=normalizer, step=number, lr=lr, name_of=name_of)
        skipped = _update(learner, number)
        sums.add(loss=loss, cells=known, images=images, skipped=skipped)
        if not on_step(Step(loss=loss, lr=lr, images=images)):
            return False
    return True


def _clipped_norm(learner: Learner) -> Tensor | None:
    """The norm of the gradient before it was clipped; None where it is not."""
    if learner.clip_grad is None:
        return None
    norm: Tensor = learner.accelerator.clip_grad_norm_(learner.prepared.parameters(), learner.clip_grad)
    return norm


def _update(learner: Learner, number: int) -> bool:
    """Take the optimizer step of this number; whether fp16's scaler left it out because a gradient overflowed."""
    scale = _scale(learner.accelerator)
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)
    learner.ema.update(learner.accelerator.unwrap_model(learner.prepared), step=number)
    learner.schedule.step()
    return _scale(learner.accelerator) < scale


def _scale(accelerator: Accelerator) -> float:
    """Of the loss under fp16, which falls where a gradient overflowed: a fused optimizer tells nobody else."""
    return 1.0 if accelerator.scaler is None else float(accelerator.scaler.get_scale())


class _Mixed(NamedTuple):
    """A micro-batch on the host, how its images will be mixed on the device, and its targets, mixed already."""

    batch: TrainBatch
    mix: Mix
    targets: Tensor


def _mixed(batch: TrainBatch, mixer: BatchMixer | None, *, seed: int, position: int) -> _Mixed:
    mix = Mix() if mixer is None else mixer.draw(batch.images, seed=seed, position=position)
    return _Mixed(batch, mix, mix.targets(batch.targets))


def _grouped(batches: Iterable[TrainBatch], size: int) -> Iterator[list[TrainBatch]]:
    remaining = iter(batches)
    while group := list(itertools.islice(remaining, size)):
        yield group


class _Backward:
    """The gradient of a step's micro-batches; it remembers into how many parts they must be cut to fit."""

    def __init__(self, learner: Learner, say: Say) -> None:
        self._learner, self._say = learner, say
        self.parts = 1

    def __call__(self, batches: list[_Mixed], known: int, *, seed: int) -> tuple[float, float]:
        """Add the gradient of the mean loss over the `known` cells; this process's share of the loss, and all of it.

        Where the memory of one process is full, all of them cut finer and begin again.
        """
        while True:
            torch.manual_seed(seed)  # dropout
            with contextlib.suppress(torch.OutOfMemoryError), processes.full_together():
                own_loss = self._sum(batches, known).item()
                return own_loss, processes.total_gradient(own_loss, self._learner.prepared.parameters())
            self._learner.optimizer.zero_grad(set_to_none=True)
            self._cut_finer(int(processes.total(max(len(targets) for _, _, targets in batches))[0]))

    def _cut_finer(self, images: int) -> None:
        """Halve the parts of micro-batches of so many `images`. Raises TrainingError where they are too small."""
        if images // processes.count() < 2 * SMALLEST_PART * self.parts:
            raise TrainingError(
                f"the device's memory is full with parts of {images // self.parts} images",
                remedy="lower images.size, take a smaller model.backbone, or set train.gradient_checkpointing=true",
            )
        self.parts *= 2
        if self._learner.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
        self._say(
            f"the device's memory is full: each batch of {images} images now goes through in {self.parts} parts; the "
            f"effective batch stays the same; batch_size={images // self.parts} with {self.parts} times the "
            "train.accumulate would say so from the start"
        )

    def _sum(self, batches: list[_Mixed], known: int) -> Tensor:
        learner, device = self._learner, self._learner.accelerator.device
        total = torch.zeros((), device=device)
        for batch, mix, targets in batches:
            images = mix.images(learner.normalizer(batch.images.to(device, non_blocking=True)))
            parts = min(self.parts, len(images))  # in each process as many: batch norms meet in every part
            for part, target in zip(images.tensor_split(parts), targets.to(device).tensor_split(parts), strict=True):
                loss = learner.loss_function(learner.prepared(part), target, reduction="sum") / max(known, 1)
                learner.accelerator.backward(loss)
                total += loss.detach()
        return total
