"""The loop: accumulation equals the large batch, clipping, unknown cells, and a loss that breaks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from pipeline.images.dataset import TrainBatch
from pipeline.model.normalize import PixelNormalizer
from pipeline.training.ema import WarmEma
from pipeline.training.engine import Step, TrainingError, train_epoch
from pipeline.training.losses import AsymmetricLoss
from pipeline.training.optim import build_optimizer, build_schedule

LABELS = 3


def _images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=generator)


def _targets(count: int) -> torch.Tensor:
    targets = (torch.rand(count, LABELS, generator=torch.Generator().manual_seed(count)) < 0.4).float()
    targets[0] = float("nan")  # an image with unknown cells makes micro-batches uneven
    return targets


def _batches(images: torch.Tensor, targets: torch.Tensor, size: int) -> Iterator[TrainBatch]:
    for start in range(0, len(images), size):
        rows = torch.arange(start, min(start + size, len(images)))
        yield TrainBatch(images[rows], targets[rows], rows)


def _train(
    batches: Iterator[TrainBatch], *, accumulate: int, clip_grad: float | None = None, epochs_steps: int = 4
) -> tuple[dict[str, torch.Tensor], float, list[Step]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.GELU(), nn.Linear(8, LABELS))
    accelerator = Accelerator(cpu=True)
    optimizer = build_optimizer(model, lr=0.01, weight_decay=0.1)
    schedule = build_schedule(optimizer, total=epochs_steps, warmup=0.2, schedule="cosine")
    prepared, wrapped = accelerator.prepare(model, optimizer)
    steps: list[Step] = []
    loss = train_epoch(
        batches,
        model=prepared,
        ema=WarmEma(model, decay=0.9),
        normalizer=PixelNormalizer([0.5] * 3, [0.25] * 3),
        loss_function=AsymmetricLoss(gamma_neg=2.0),
        optimizer=wrapped,
        schedule=schedule,
        accelerator=accelerator,
        accumulate=accumulate,
        clip_grad=clip_grad,
        on_step=steps.append,
    )
    return model.state_dict(), loss, steps


@pytest.mark.parametrize("clip_grad", [None, 0.05])
def test_accumulation_equals_the_large_batch_with_unknown_cells_and_a_short_last_batch(
    clip_grad: float | None,
) -> None:
    images, targets = _images(10), _targets(10)
    whole, loss, steps = _train(_batches(images, targets, 10), accumulate=1, clip_grad=clip_grad)
    parts, parts_loss, parts_steps = _train(_batches(images, targets, 4), accumulate=3, clip_grad=clip_grad)
    assert len(steps) == len(parts_steps) == 1
    assert steps[0].images == parts_steps[0].images == 10
    assert parts_loss == pytest.approx(loss, rel=1e-6)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-6)


def test_clipping_changes_the_step_only_where_the_gradient_is_large() -> None:
    images, targets = _images(10), _targets(10)
    free, _, _ = _train(_batches(images, targets, 5), accumulate=1)
    loose, _, _ = _train(_batches(images, targets, 5), accumulate=1, clip_grad=1e6)
    tight, _, _ = _train(_batches(images, targets, 5), accumulate=1, clip_grad=1e-6)
    assert all(torch.equal(free[name], loose[name]) for name in free)
    assert any(not torch.equal(free[name], tight[name]) for name in free)


def test_the_loss_is_a_mean_so_that_more_of_the_same_images_change_nothing() -> None:
    images, targets = _images(10), _targets(10)
    once, loss, _ = _train(_batches(images, targets, 10), accumulate=1)
    twice, same, _ = _train(_batches(images.repeat(2, 1, 1, 1), targets.repeat(2, 1), 20), accumulate=1)
    assert same == pytest.approx(loss, rel=1e-6)
    for name, value in once.items():
        torch.testing.assert_close(twice[name], value, rtol=0, atol=1e-6)


def test_steps_report_the_rate_that_was_used() -> None:
    _, _, steps = _train(_batches(_images(8), _targets(8), 2), accumulate=1)
    assert len(steps) == 4
    assert steps[0].lr == pytest.approx(0.01)
    assert steps[-1].lr < steps[1].lr


def test_a_loss_that_is_not_finite_stops_with_a_remedy() -> None:
    targets = _targets(4)
    targets[1] = float("inf")
    with pytest.raises(TrainingError, match=r"remedy: .*train\.lr"):
        _train(_batches(_images(4), targets, 4), accumulate=1)


def test_the_normalizer_takes_uint8_only_and_equals_its_formula() -> None:
    normalizer = PixelNormalizer([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])
    images = _images(2)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3]))
    torch.testing.assert_close(normalizer(images), (images / 255 - mean) / std)
    with pytest.raises(ValueError, match="uint8"):
        normalizer(images.float())
