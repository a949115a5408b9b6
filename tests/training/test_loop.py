"""The loop: accumulation equals the large batch, clipping, unknown cells, and a loss that breaks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from pipeline.images.dataset import TrainBatch
from pipeline.model.normalize import PixelNormalizer
from pipeline.training.loop import EpochTotals, Step, Training, train_epoch
from pipeline.training.losses import AsymmetricLoss
from pipeline.training.mixing import BatchMixer
from pipeline.training.non_finite import TrainingError
from pipeline.training.optim import WarmEma, build_optimizer, build_schedule

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
    batches: Iterator[TrainBatch],
    *,
    accumulate: int,
    clip_grad: float | None = None,
    epochs_steps: int = 4,
    between: nn.Module | None = None,
    mixer: BatchMixer | None = None,
    notes: list[str] | None = None,
    scaler: object | None = None,
) -> tuple[dict[str, torch.Tensor], EpochTotals, list[Step]]:
    torch.manual_seed(0)
    middle = nn.GELU() if between is None else between
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), middle, nn.Linear(8, LABELS))
    accelerator = Accelerator(cpu=True)
    optimizer = build_optimizer(model, lr=0.01, weight_decay=0.1)
    schedule = build_schedule(optimizer, total=epochs_steps, warmup=0.2, schedule="cosine")
    prepared, wrapped = accelerator.prepare(model, optimizer)
    accelerator.scaler = scaler
    steps: list[Step] = []

    def on_step(step: Step) -> bool:
        steps.append(step)
        return True

    training = Training(
        accelerator=accelerator,
        model=model,
        prepared=prepared,
        ema=WarmEma(model, decay=0.9),
        normalizer=PixelNormalizer([0.5] * 3, [0.25] * 3),
        loss_function=AsymmetricLoss(gamma_neg=2.0),
        optimizer=wrapped,
        schedule=schedule,
        accumulate=accumulate,
        clip_grad=clip_grad,
        mixer=mixer,
    )
    assert train_epoch(
        batches,
        training,
        seed_of=lambda step: step,
        on_step=on_step,
        note=([] if notes is None else notes).append,
        name_of=lambda row: f"image {row}",
    )
    return model.state_dict(), training.totals, steps


@pytest.mark.parametrize("clip_grad", [None, 0.05])
def test_accumulation_equals_the_large_batch_with_unknown_cells_and_a_short_last_batch(
    clip_grad: float | None,
) -> None:
    images, targets = _images(10), _targets(10)
    whole, totals, steps = _train(_batches(images, targets, 10), accumulate=1, clip_grad=clip_grad)
    parts, parts_totals, parts_steps = _train(_batches(images, targets, 4), accumulate=3, clip_grad=clip_grad)
    assert len(steps) == len(parts_steps) == 1
    assert steps[0].images == parts_steps[0].images == 10
    assert parts_totals.mean_loss == pytest.approx(totals.mean_loss, rel=1e-6)
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
    once, totals, _ = _train(_batches(images, targets, 10), accumulate=1)
    twice, twice_totals, _ = _train(_batches(images.repeat(2, 1, 1, 1), targets.repeat(2, 1), 20), accumulate=1)
    assert twice_totals.mean_loss == pytest.approx(totals.mean_loss, rel=1e-6)
    for name, value in once.items():
        torch.testing.assert_close(twice[name], value, rtol=0, atol=1e-6)


def test_steps_report_the_rate_that_was_used() -> None:
    _, _, steps = _train(_batches(_images(8), _targets(8), 2), accumulate=1)
    assert len(steps) == 4
    assert steps[0].lr == pytest.approx(0.01)
    assert steps[-1].lr < steps[1].lr


class Planted(nn.Module):
    """A layer whose numbers overflow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / torch.zeros_like(x)


def test_a_loss_that_is_not_finite_names_the_images_and_the_layer_that_went_bad_first() -> None:
    with pytest.raises(TrainingError, match=r"layer '2' \(Planted\) goes bad first: its numbers overflow") as caught:
        _train(_batches(_images(4), _targets(4), 2), accumulate=2, between=Planted())
    assert "image 0, image 1, image 2, image 3\n  remedy:   lower train.lr" in str(caught.value)


def test_a_weight_that_is_not_finite_is_named() -> None:
    planted = nn.Linear(8, 8)
    with torch.no_grad():
        planted.weight[3, 3] = float("nan")
    with pytest.raises(TrainingError, match=r"layer '2' \(Linear\) goes bad first: its weight are not finite"):
        _train(_batches(_images(4), _targets(4), 4), accumulate=1, between=planted)


class Cramped(nn.Module):
    """Memory for so many images."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.seen = most, list[int]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.nn.functional.gelu(x)


def test_where_memory_runs_out_the_step_is_repeated_in_parts_and_comes_to_the_same() -> None:
    images, targets = _images(16), _targets(16)
    whole, totals, _ = _train(_batches(images, targets, 8), accumulate=1)
    cramped, notes = Cramped(3), list[str]()
    parts, parts_totals, steps = _train(_batches(images, targets, 8), accumulate=1, between=cramped, notes=notes)
    assert cramped.seen == [8, 4] + [2] * 8  # found out once, remembered for the second step
    assert len(steps) == 2
    assert [f"in {parts} parts" in sentence for parts, sentence in zip((2, 4), notes, strict=True)] == [True, True]
    assert parts_totals.mean_loss == pytest.approx(totals.mean_loss, rel=1e-6)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-6)


def test_memory_for_no_two_images_is_an_error_with_a_remedy() -> None:
    with pytest.raises(TrainingError, match=r"memory is full with parts of 2 images(.|\n)*images\.size"):
        _train(_batches(_images(8), _targets(8), 8), accumulate=1, between=Cramped(1))


class Scaler:
    """Of fp16, as far as the loop knows it: its scale before and after each step."""

    def __init__(self, *scales: float) -> None:
        self._scales = iter(scales)

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return loss

    def get_scale(self) -> float:
        return next(self._scales)


def test_a_step_that_fp16_skips_is_counted_by_the_scale_that_falls() -> None:
    scaler = Scaler(4.0, 4.0, 4.0, 2.0, 2.0, 4.0, 4.0, 2.0)  # kept, skipped, grown, skipped
    _, totals, _ = _train(_batches(_images(8), _targets(8), 2), accumulate=1, scaler=scaler)
    assert (totals.steps, totals.skipped) == (4, 2)
    _, totals, _ = _train(_batches(_images(8), _targets(8), 2), accumulate=1)
    assert (totals.steps, totals.skipped) == (4, 0)


def test_mixing_changes_the_training_and_depends_on_the_step_alone() -> None:
    images, targets = _images(8), _targets(8)
    plain, _, _ = _train(_batches(images, targets, 4), accumulate=1)
    mixed, totals, _ = _train(_batches(images, targets, 4), accumulate=1, mixer=MIXUP)
    again, same, _ = _train(_batches(images, targets, 4), accumulate=1, mixer=MIXUP)
    assert totals == same
    assert all(torch.equal(mixed[name], again[name]) for name in mixed)
    assert any(not torch.equal(mixed[name], plain[name]) for name in mixed)


MIXUP = BatchMixer(mixup=1.0, cutmix=0.0, probability=1.0)


def test_the_normalizer_takes_uint8_only_and_equals_its_formula() -> None:
    normalizer = PixelNormalizer([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])
    images = _images(2)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.5, 0.4, 0.3], [0.2, 0.25, 0.3]))
    torch.testing.assert_close(normalizer(images), (images / 255 - mean) / std)
    with pytest.raises(ValueError, match="uint8"):
        normalizer(images.float())
