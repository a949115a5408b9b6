"""Two processes take the steps of one: the same images, loss, gradient and weights."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pipeline import processes
from pipeline.images.dataset import TrainBatch
from pipeline.model.normalize import PixelNormalizer
from pipeline.training.ema import WarmEma
from pipeline.training.engine import EpochSums, train_epoch
from pipeline.training.faults import TrainingError
from pipeline.training.losses import AsymmetricLoss
from tests.together import call_together

LABELS, BATCH, BATCHES = 3, 5, 8  # a batch that two processes cannot halve


class Trained(NamedTuple):
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    sums: EpochSums
    parts: list[int]  # images that the model saw at once
    error: str


class Cramped(nn.Module):
    """Memory for three images in the second process."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if processes.rank() == 1 and len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return nn.functional.gelu(x)


def data() -> tuple[Tensor, Tensor]:
    """Images and targets; all cells of some images are unknown, most of which the first process gets."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH * BATCHES, 3, 4, 4), dtype=torch.uint8, generator=generator)
    targets = (torch.rand(len(images), LABELS, generator=generator) < 0.4).float()
    targets[0::4] = targets[3, 1] = torch.nan
    return images, targets


def train(*, accumulate: int, clip_grad: float | None, batch: int = BATCH, poisoned: int | None = None) -> Trained:
    """An epoch by SGD, whose step, unlike Adam's, shows the size of the gradient."""
    images, targets = data()
    if poisoned is not None:
        targets[poisoned] = torch.inf
    torch.manual_seed(0)
    cramped = Cramped()
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), cramped, nn.Linear(8, LABELS))
    accelerator = Accelerator()
    optimizer = accelerator.prepare(torch.optim.SGD(model.parameters(), lr=0.5))
    ema, sums, error = WarmEma(model, decay=0.9), EpochSums(), ""
    whole = [list(range(start, start + batch)) for start in range(0, len(images), batch)]
    try:
        train_epoch(
            [TrainBatch(images[rows], targets[rows], torch.tensor(rows)) for rows in map(processes.part_of, whole)],
            model=model,
            ema=ema,
            normalizer=PixelNormalizer([0.5] * 3, [0.25] * 3),
            loss_function=AsymmetricLoss(gamma_neg=2.0),
            optimizer=optimizer,
            schedule=torch.optim.lr_scheduler.LambdaLR(optimizer.optimizer, lambda _: 1.0),
            accelerator=accelerator,
            accumulate=accumulate,
            clip_grad=clip_grad,
            sums=sums,
            seed_of=lambda step: step,
            on_step=lambda _: True,
            say=lambda _: None,
            name_of=lambda row: f"image {row}",
        )
    except TrainingError as caught:
        error = str(caught)
        assert poisoned is not None, error
    return Trained(model.state_dict(), ema.module.state_dict(), sums, cramped.seen, error)


def all_trainings() -> dict[str, Trained]:
    return {
        "plain": train(accumulate=1, clip_grad=None),
        "accumulated": train(accumulate=3, clip_grad=None),
        "clipped": train(accumulate=1, clip_grad=0.05),
        "large batches": train(accumulate=1, clip_grad=None, batch=20),
        "poisoned": train(accumulate=1, clip_grad=None, poisoned=6),
    }


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Trained]]:
    """What each of two processes has after all trainings."""
    return call_together(all_trainings, tmp_path_factory.mktemp("together"))


@pytest.mark.parametrize("name", ["plain", "accumulated", "clipped", "large batches"])
def test_two_processes_take_the_steps_of_one(name: str, together: list[dict[str, Trained]]) -> None:
    alone = all_trainings()[name]
    for each in (process[name] for process in together):
        assert each.sums.cells == alone.sums.cells
        assert each.sums.images == alone.sums.images == BATCH * BATCHES
        assert each.sums.mean_loss == pytest.approx(alone.sums.mean_loss, rel=1e-6)
        for key, value in alone.weights.items():
            torch.testing.assert_close(each.weights[key], value, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(each.average[key], alone.average[key], rtol=1e-5, atol=1e-6)
    first, second = (process[name] for process in together)
    assert all(torch.equal(first.weights[key], second.weights[key]) for key in first.weights)


def test_each_process_sees_its_part_and_halves_it_where_its_own_memory_is_full(
    together: list[dict[str, Trained]],
) -> None:
    first, second = together
    assert first["plain"].parts == [3] * BATCHES
    assert second["plain"].parts == [2] * BATCHES
    assert first["large batches"].parts == [10] * 2
    assert second["large batches"].parts == [10, 5, 3, 3, 3, 1, 3, 3, 3, 1]


def test_a_loss_that_is_not_finite_in_one_process_stops_both_and_names_the_images_of_that_one(
    together: list[dict[str, Trained]],
) -> None:
    first, second = (process["poisoned"] for process in together)
    assert first.error == second.error
    assert "at optimizer step 2 " in first.error
    assert "images image 6, image 8\n" in first.error
