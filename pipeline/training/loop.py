"""The training loop: objects in, numbers out. It knows no config, no files and no competition."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pipeline import interrupts, processes
from pipeline.images.dataset import TrainBatch
from pipeline.training.distributed import total
from pipeline.training.losses import MultiLabelLoss, known_cells
from pipeline.training.mixing import BatchMixer, Mix
from pipeline.training.non_finite import TrainingError, is_finite, non_finite
from pipeline.training.optim import WarmEma

SMALLEST_PART = 2  # images that a batch norm needs at least


class Step(NamedTuple):
    """The result of one optimizer step."""

    loss: float  # mean over the known cells of the step's images
    lr: float
    images: int
    interrupted: bool = False  # by a signal to one of the processes


@dataclass
class EpochTotals:
    """Totals of an epoch so far; a state that is saved in the middle of an epoch holds them."""

    loss: float = 0.0  # over all known cells
    cells: int = 0
    steps: int = 0
    skipped: int = 0  # steps that the scaler of fp16 left out because a gradient overflowed
    images: int = 0
    seconds: float = 0.0
    lr: float = 0.0  # of the last step

    def add(self, *, loss: float, lr: float, cells: int, images: int, skipped: bool) -> None:
        """Add a step whose mean loss over `cells` known cells was `loss`."""
        self.lr = lr
        self.loss, self.cells = self.loss + loss * cells, self.cells + cells
        self.steps, self.images = self.steps + 1, self.images + images
        self.skipped += skipped

    @property
    def mean_loss(self) -> float:
        """Over the known cells."""
        return self.loss / max(self.cells, 1)


@dataclass(kw_only=True)
class Training:
    """A network, everything that changes it in a step, and how far its training is.

    Attributes:
        model: the network as built, on the device.
        prepared: gives logits (B, K) of normalised images; has the weights of `model`. The accelerator prepared it,
            as it did `optimizer`.
        ema: the average of the weights of `model`.
        normalizer: from what a batch holds to what the network reads, on the device.
        accumulate: micro-batches of an optimizer step.
        clip_grad: the largest gradient norm, or None.
        mixer: mixes the images of a micro-batch with each other, or None.
        records: one for each finished epoch.
        totals: of the epoch under way.
    """

    accelerator: Accelerator
    model: nn.Module
    prepared: nn.Module
    ema: WarmEma
    normalizer: nn.Module
    loss_function: MultiLabelLoss
    optimizer: Any  # Accelerate's wrapper around a torch optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    accumulate: int = 1
    clip_grad: float | None = None
    mixer: BatchMixer | None = None
    records: list[dict[str, Any]] = field(default_factory=list)
    totals: EpochTotals = field(default_factory=EpochTotals)


def train_epoch(
    batches: Iterable[TrainBatch],
    training: Training,
    *,
    seed_of: Callable[[int], int],
    on_step: Callable[[Step], bool],
    note: Callable[[str], None],
    name_of: Callable[[int], str] = str,
) -> bool:
    """One pass over `batches`, an optimizer step every `training.accumulate` of them, added to `training.totals`.

    The loss of a step is summed over its micro-batches and divided by all their known cells, so that
    accumulation equals one large batch, also where cells are unknown or the last batch is short. What is drawn
    in a step (dropout, mixing) is a function of `seed_of` and its number: a training that is resumed in the middle
    of an epoch draws the same. Where memory runs out, micro-batches are cut in halves and the step is repeated.

    Several processes each train on their own part of every batch. The known cells are summed over all of them and
    DistributedDataParallel sums the gradient, so that the step is that of one process with the whole batch.

    Args:
        batches: micro-batches on the host; the rest of the epoch, where `training.totals` holds its beginning. Every
            process has as many, with at least one image each.
        training: changed in place.
        seed_of: from the number of an optimizer step, from 0 over all epochs, to its seed.
        on_step: called after each optimizer step; False ends the epoch there.
        note: receives sentences for a person.
        name_of: from the index of a row to its name in messages.

    Returns:
        Whether the epoch came to its end.

    Raises:
        TrainingError: the loss or the gradient is not finite; weights, average and totals are as before the step.
    """
    training.prepared.train()
    backward = _Backward(training, note)
    for group in _grouped(batches, training.accumulate):
        number, lr = training.schedule.last_epoch, float(training.schedule.get_last_lr()[0])
        seed = seed_of(number)
        mixed = [_mixed(batch, training.mixer, seed=seed, position=place) for place, batch in enumerate(group)]
        own_cells = int(sum(known_cells(targets) for _, _, targets in mixed))
        known, images = map(int, total(own_cells, sum(len(batch.images) for batch in group)))
        own_loss = backward(mixed, known, seed=seed)
        loss, interrupted = total(own_loss, interrupts.received())
        if not is_finite(loss, _clipped_norm(training), scaled=training.accelerator.scaler is not None):
            training.optimizer.zero_grad(set_to_none=True)
            model, normalizer = training.model, training.normalizer
            raise non_finite(own_loss, group, model=model, normalizer=normalizer, step=number, lr=lr, name_of=name_of)
        scale = _loss_scale(training.accelerator)
        training.optimizer.step()
        training.optimizer.zero_grad(set_to_none=True)
        training.ema.update(training.model, step=number)
        training.schedule.step()
        skipped = _loss_scale(training.accelerator) < scale
        training.totals.add(loss=loss, lr=lr, cells=known, images=images, skipped=skipped)
        if not on_step(Step(loss=loss, lr=lr, images=images, interrupted=interrupted > 0)):
            return False
    return True


def _clipped_norm(training: Training) -> Tensor | None:
    """The norm of the gradient before it was clipped; None where it is not."""
    if training.clip_grad is None:
        return None
    norm: Tensor = training.accelerator.clip_grad_norm_(training.prepared.parameters(), training.clip_grad)
    return norm


def _loss_scale(accelerator: Accelerator) -> float:
    """The scale of fp16: it falls where a gradient overflowed, the only sign of it that a fused optimizer gives."""
    return 1.0 if accelerator.scaler is None else float(accelerator.scaler.get_scale())


class _Mixed(NamedTuple):
    """A micro-batch on the host, the mix of its images, which the device computes, and its mixed targets."""

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
    """Computes the gradient of a step; remembers into how many parts micro-batches must be cut to fit into memory."""

    def __init__(self, training: Training, note: Callable[[str], None]) -> None:
        self._training, self._note = training, note
        self._parts = 1

    def __call__(self, batches: list[_Mixed], known: int, *, seed: int) -> float:
        """Add the gradient of the mean loss over the `known` cells; returns this process's part of the loss.

        Where the memory is full, the step is repeated in smaller parts. Only one process alone can do so: several
        must all make the same number of backward passes.
        """
        repeated = [torch.OutOfMemoryError] if processes.count() == 1 else []
        while True:
            torch.manual_seed(seed)  # dropout
            with contextlib.suppress(*repeated):
                return self._sum(batches, known).item()
            self._training.optimizer.zero_grad(set_to_none=True)
            self._cut_finer(max(len(targets) for _, _, targets in batches))

    def _cut_finer(self, images: int) -> None:
        """Halve the parts of micro-batches of so many `images`. Raises TrainingError where they are too small."""
        if images < 2 * SMALLEST_PART * self._parts:
            raise TrainingError(
                f"the device's memory is full with parts of {images // self._parts} images",
                remedy="lower images.size, take a smaller model.backbone, or set train.gradient_checkpointing=true",
            )
        self._parts *= 2
        if self._training.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
        self._note(
            f"the device's memory is full: each batch of {images} images now goes through in {self._parts} parts; the "
            f"effective batch stays the same; batch_size={images // self._parts} with {self._parts} times the "
            "train.accumulate would say so from the start"
        )

    def _sum(self, batches: list[_Mixed], known: int) -> Tensor:
        training, accelerator = self._training, self._training.accelerator
        device = accelerator.device
        summed = torch.zeros((), device=device)
        for place, (batch, mix, targets) in enumerate(batches, start=1):
            images = mix.images(training.normalizer(batch.images.to(device, non_blocking=True)))
            parts = min(self._parts, len(images))
            last = place == len(batches)
            with contextlib.nullcontext() if last else accelerator.no_sync(training.prepared):
                for part, target in zip(
                    images.tensor_split(parts), targets.to(device).tensor_split(parts), strict=True
                ):
                    loss = training.loss_function(training.prepared(part), target, reduction="sum") / max(known, 1)
                    accelerator.backward(loss * processes.count())  # by which the wrapped network divides the sum
                    summed += loss.detach()
        return summed
