"""Two processes take the steps of one: the same images, loss, gradient, weights and statistics."""

from __future__ import annotations

import math
import unittest.mock
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
import torch
from accelerate import Accelerator
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from pipeline import processes
from pipeline.config import load_config
from pipeline.images.dataset import TrainBatch
from pipeline.model.build import backbone_of, build_model
from pipeline.model.normalize import PixelNormalizer
from pipeline.model.shared_norm import share_batch_norms
from pipeline.processes import exchange
from pipeline.training.loop import EpochTotals, Training, train_epoch
from pipeline.training.losses import AsymmetricLoss
from pipeline.training.non_finite import TrainingError
from pipeline.training.optim import WarmEma
from tests.conftest import PROJECT
from tests.together import call_together

LABELS, BATCH, BATCHES = 3, 5, 8  # a batch that two processes cannot halve


class Trained(NamedTuple):
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    totals: EpochTotals
    parts: list[int]  # images that the model saw at once
    error: str
    notes: list[str]


class Cramped(nn.Module):
    """Memory for three images in the second process."""

    def __init__(self, most: int = 3) -> None:
        super().__init__()
        self.most, self.seen = most, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if processes.rank() == 1 and len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return nn.functional.gelu(x)


class CrampedBackward(Cramped):
    """The same on the way back."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        output = nn.functional.gelu(x)
        if x.requires_grad:
            output.register_hook(self.fill)  # type: ignore[no-untyped-call]
        return output

    def fill(self, gradient: Tensor) -> None:
        if processes.rank() == 1 and len(gradient) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")


class Overflowing(nn.Module):
    """A layer whose numbers overflow in the second process."""

    def forward(self, x: Tensor) -> Tensor:
        return x / torch.full_like(x, 1.0 - processes.rank())


def plain(middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 8), middle, nn.Linear(8, LABELS))


def with_norms(middle: nn.Module) -> nn.Module:
    """Batch norms before and behind what goes wrong."""
    layers = [nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), middle, nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(128, LABELS))


def demo(*, checkpointed: bool = False) -> nn.Module:
    config = load_config(PROJECT / "configs/demo.yaml", [])
    model = build_model(config.model, config.images, num_labels=LABELS, pretrained=False)
    if checkpointed:
        backbone_of(model).checkpoint_gradients()
    return model


def data(size: int) -> tuple[Tensor, Tensor]:
    """Images and targets; all cells of some images are unknown, most of which the first process gets."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH * BATCHES, 3, size, size), dtype=torch.uint8, generator=generator)
    targets = (torch.rand(len(images), LABELS, generator=generator) < 0.4).float()
    targets[0::4] = targets[3, 1] = torch.nan
    return images, targets


def train(
    build: Callable[[], nn.Module] = lambda: plain(Cramped()),
    *,
    accumulate: int = 1,
    clip_grad: float | None = None,
    batch: int = BATCH,
    batches: int | None = None,
    size: int = 4,
    lr: float = 0.5,
    poisoned: int | None = None,
) -> Trained:
    """An epoch by SGD, whose step, unlike Adam's, shows the size of the gradient."""
    images, targets = data(size)
    if poisoned is not None:
        targets[poisoned] = torch.inf
    torch.manual_seed(0)
    model = build()
    accelerator = Accelerator()
    optimizer = accelerator.prepare(torch.optim.SGD(model.parameters(), lr=lr))
    ema, error, notes = WarmEma(model, decay=0.9), "", list[str]()
    if processes.count() > 1:
        share_batch_norms(model)
    training = Training(
        accelerator=accelerator,
        model=model,
        prepared=model,
        ema=ema,
        normalizer=PixelNormalizer([0.5] * 3, [0.25] * 3),
        loss_function=AsymmetricLoss(gamma_neg=2.0),
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.LambdaLR(optimizer.optimizer, lambda _: 1.0),
        accumulate=accumulate,
        clip_grad=clip_grad,
    )
    whole = [list(range(start, start + batch)) for start in range(0, len(images), batch)][:batches]
    try:
        train_epoch(
            [TrainBatch(images[rows], targets[rows], torch.tensor(rows)) for rows in map(processes.part_of, whole)],
            training,
            seed_of=lambda step: step,
            on_step=lambda _: True,
            note=notes.append,
            name_of=lambda row: f"image {row}",
        )
    except TrainingError as caught:
        error = str(caught)
    seen = [size for module in model.modules() if isinstance(module, Cramped) for size in module.seen]
    return Trained(model.state_dict(), ema.module.state_dict(), training.totals, seen, error, notes)


def full_when_sent() -> Trained:
    """There is no room for the message in the second process, once."""
    full = [torch.OutOfMemoryError("CUDA out of memory")] if processes.rank() == 1 else []
    make_room = exchange._room_for

    def once_full(buckets: Sequence[Sequence[Tensor]]) -> dict[torch.dtype, Tensor]:
        if full:
            raise full.pop()
        return make_room(buckets)

    with unittest.mock.patch.object(exchange, "_room_for", once_full):
        return train(lambda: with_norms(Cramped(100)), batch=20)


AS_ONE: dict[str, Callable[[], Trained]] = {
    "plain": train,
    "accumulated": lambda: train(accumulate=3),
    "clipped": lambda: train(clip_grad=0.05),
    "large batches": lambda: train(batch=20),
    "batch norms of the demo": lambda: train(demo, batches=3, size=64, lr=0.05),
    "activations computed again": lambda: train(lambda: demo(checkpointed=True), batches=2, size=64, lr=0.05),
}
OTHERS: dict[str, Callable[[], Trained]] = {
    "poisoned": lambda: train(poisoned=6),
    "overflowing": lambda: train(lambda: with_norms(Overflowing())),
    "full between batch norms": lambda: train(lambda: with_norms(Cramped()), batch=20),
    "full on the way back": lambda: train(lambda: with_norms(CrampedBackward()), batch=20),
    "full when gradients are sent": full_when_sent,
    "too full": lambda: train(lambda: with_norms(Cramped(1)), batch=10),
}


def norms() -> dict[str, nn.Module]:
    """By a name: with a drifting average, without weights, without statistics, with an activation."""
    return {
        "plain": nn.BatchNorm2d(4, momentum=0.3, eps=1e-3),
        "cumulative": nn.BatchNorm2d(4, momentum=None),
        "no weights": nn.BatchNorm2d(4, affine=False),
        "no statistics": nn.BatchNorm2d(4, track_running_stats=False),
        "of vectors": nn.BatchNorm1d(4),
        "with an activation": BatchNormAct2d(4),
    }


def normed(name: str, *, dtype: torch.dtype) -> dict[str, Tensor]:
    """Two passes through a norm of uneven parts far from zero; the tensors of each image, row by row, and sums."""
    norm = norms()[name].to(torch.promote_types(dtype, torch.float32))
    generator = torch.Generator().manual_seed(1)
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, -1, 1, generator=generator)
    if processes.count() > 1:
        share_batch_norms(norm)
    shape = (7, 4) if name == "of vectors" else (7, 4, 3, 2)
    found: dict[str, Tensor] = {}
    for step in range(2):
        images = torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 30
        pull = torch.randn(shape, generator=generator, dtype=torch.float64)
        own = torch.tensor(list(processes.part_of(range(7))))
        x = images[own].to(dtype).requires_grad_()
        y = norm(x)
        (y * pull[own].to(dtype)).sum().backward()
        assert y.dtype == dtype and x.grad is not None  # noqa: PT018
        found |= {f"output {step}": y.detach(), f"gradient {step}": x.grad}
    found |= {f"weights {name}": each.grad for name, each in norm.named_parameters() if each.grad is not None}
    return found | {f"buffer {name}": each for name, each in norm.named_buffers()}


def exchanges_in_evaluation() -> int:
    """How often processes speak with each other in a forward pass of frozen and evaluated norms."""
    model = demo()
    share_batch_norms(model)
    backbone_of(model).freeze(stem=False, batch_norm=True)
    with unittest.mock.patch.object(processes, "total_in_place") as spoken:
        for mode in (True, False):
            model.train(mode)(torch.zeros(2, 3, 64, 64))
    return spoken.call_count


class Answers(NamedTuple):
    trained: dict[str, Trained]
    normed: dict[tuple[str, torch.dtype], dict[str, Tensor]]
    exchanges: int
    keys_kept: bool


DTYPES = (torch.float64, torch.float32, torch.bfloat16)


def everything() -> Answers:
    before, model = set(demo().state_dict()), demo()
    share_batch_norms(model)
    return Answers(
        {name: training() for name, training in (AS_ONE | OTHERS).items()},
        {(name, dtype): normed(name, dtype=dtype) for name in norms() for dtype in DTYPES},
        exchanges_in_evaluation(),
        set(model.state_dict()) == before,
    )


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[Answers]:
    """What each of two processes has after all trainings."""
    return call_together(everything, tmp_path_factory.mktemp("together"))


@pytest.mark.parametrize("name", AS_ONE)
def test_two_processes_take_the_steps_of_one(name: str, together: list[Answers]) -> None:
    alone = AS_ONE[name]()
    for each in (answers.trained[name] for answers in together):
        assert each.totals.cells == alone.totals.cells
        assert each.totals.images == alone.totals.images > 0
        assert each.totals.mean_loss == pytest.approx(alone.totals.mean_loss, rel=1e-6)
        for key, value in alone.weights.items():
            torch.testing.assert_close(each.weights[key], value, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(each.average[key], alone.average[key], rtol=1e-5, atol=1e-6)
    assert are_alike(name, together)


def are_alike(name: str, together: list[Answers]) -> bool:
    first, second = (answers.trained[name] for answers in together)
    return all(torch.equal(first.weights[key], second.weights[key]) for key in first.weights)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str
)
@pytest.mark.parametrize("name", norms())
def test_a_batch_norm_of_two_processes_is_that_of_one(
    name: str, dtype: torch.dtype, tolerance: float, together: list[Answers]
) -> None:
    alone = normed(name, dtype=dtype)
    first, second = (answers.normed[name, dtype] for answers in together)
    assert first.keys() == second.keys() == alone.keys()
    for key, value in alone.items():
        if key.startswith("weights"):  # the engine adds up gradients
            torch.testing.assert_close(first[key] + second[key], value, rtol=tolerance, atol=tolerance)
        elif key.startswith("buffer"):
            torch.testing.assert_close(first[key], value, rtol=tolerance, atol=tolerance)
            assert torch.equal(first[key], second[key])
        else:
            whole = torch.empty_like(value)
            whole[0::2], whole[1::2] = first[key], second[key]
            torch.testing.assert_close(whole, value, rtol=tolerance, atol=tolerance)


def test_norms_that_are_evaluated_or_frozen_exchange_nothing_and_names_of_weights_stay(together: list[Answers]) -> None:
    assert [answers.exchanges for answers in together] == [0, 0]
    assert all(answers.keys_kept for answers in together)


def test_each_process_sees_its_part_and_all_halve_it_where_the_memory_of_one_is_full(together: list[Answers]) -> None:
    first, second = (answers.trained for answers in together)
    assert first["plain"].parts == [3] * BATCHES
    assert second["plain"].parts == [2] * BATCHES
    found_out, remembered = [10, 5, 5, 3, 3, 2, 2], [3, 3, 2, 2]
    assert first["large batches"].parts == [*found_out, *remembered]
    assert second["large batches"].parts == [10, 5, 3, 3, 2, 2, *remembered]
    assert "each batch of 20 images now goes through in 4 parts" in first["large batches"].notes[1]


@pytest.mark.parametrize("name", ["full between batch norms", "full on the way back", "full when gradients are sent"])
def test_a_full_memory_in_one_process_keeps_none_waiting_at_a_batch_norm(name: str, together: list[Answers]) -> None:
    first, second = (answers.trained[name] for answers in together)
    assert first.error == second.error == ""
    assert first.totals.steps == second.totals.steps == 2
    assert math.isfinite(first.totals.mean_loss)
    assert first.parts[-2:] == second.parts[-2:] == ([5, 5] if name.endswith("sent") else [2, 2])
    assert are_alike(name, together)


def test_a_memory_too_small_for_any_part_is_the_same_error_in_both(together: list[Answers]) -> None:
    first, second = (answers.trained["too full"] for answers in together)
    assert first.error == second.error
    assert "memory is full with parts of 5 images" in first.error


def test_a_loss_that_is_not_finite_in_one_process_stops_both_and_names_the_images_of_that_one(
    together: list[Answers],
) -> None:
    first, second = (answers.trained["poisoned"] for answers in together)
    assert first.error == second.error
    assert "at optimizer step 2 " in first.error
    assert "images image 6, image 8\n" in first.error


def test_numbers_that_overflow_in_one_process_and_spread_by_batch_norms_name_that_one(
    together: list[Answers],
) -> None:
    first, second = (answers.trained["overflowing"] for answers in together)
    assert first.error == second.error
    assert "layer '2' (Overflowing) goes bad first" in first.error
    assert "images image 1, image 3\n" in first.error
