"""The saved training state gives back every bit, in the memory layout it had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from pipeline.errors import RunError
from pipeline.model.weights import load_tensors, save_tensors
from pipeline.training.checkpoint import resume_training, save_training
from pipeline.training.loop import EpochTotals, Training
from pipeline.training.losses import BinaryCrossEntropy
from pipeline.training.optim import WarmEma


def make_training(seed: int) -> Training:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    accelerator = Accelerator(cpu=True)
    optimizer = accelerator.prepare(torch.optim.AdamW(model.parameters(), lr=0.1, fused=True))
    return Training(
        accelerator=accelerator,
        model=model,
        prepared=model,
        ema=WarmEma(model, decay=0.9),
        normalizer=nn.Identity(),
        loss_function=BinaryCrossEntropy(),
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.LambdaLR(optimizer.optimizer, lambda step: 1 / (1 + step)),
    )


def step(training: Training) -> None:
    training.optimizer.zero_grad()
    images = torch.ones(2, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    training.model(images).square().sum().backward()
    training.optimizer.step()
    training.ema.update(training.model, step=training.schedule.last_epoch)
    training.schedule.step()


def test_training_goes_on_from_a_saved_state_with_the_same_bits(tmp_path: Path) -> None:
    training, other = make_training(0), make_training(1)
    step(training)
    training.records, training.totals = [{"epoch": 1}], EpochTotals(loss=0.1, cells=3, steps=1)
    save_training(tmp_path / "state", training)
    resume_training(tmp_path / "no state", other)
    assert other.records == []
    resume_training(tmp_path / "state", other)
    assert (other.records, other.totals) == (training.records, training.totals)
    for _ in range(2):
        step(training)
        step(other)
    for ours, theirs in ((training.model, other.model), (training.ema.module, other.ema.module)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    strides = [
        [state["exp_avg"].stride() for state in each.optimizer.optimizer.state.values()] for each in (training, other)
    ]
    assert strides[0] == strides[1]


@pytest.mark.parametrize("content", [b"", b"not tensors", None])
def test_a_broken_or_missing_file_is_a_run_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match="not readable as weights"):
        load_tensors(path)


def test_tensors_without_our_facts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_tensors(path, {"a": torch.ones(2)}, {"labels": ["x"]})
    assert load_tensors(path)[1] == {"labels": ["x"]}
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(RunError, match="facts"):
        load_tensors(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("records", [{"epoch": 7}]),
        ("records", None),
        ("sums", {"loss": 0.0}),
        ("schedule", {"last_epoch": 1}),
        ("param_groups", []),
        ("param_groups", [{"lr": "fast"}]),
    ],
)
def test_a_state_of_another_shape_is_refused(tmp_path: Path, key: str, value: object) -> None:
    training, path = make_training(0), tmp_path / "state"
    step(training)
    save_training(path, training)
    tensors, facts = load_tensors(path)
    save_tensors(path, tensors, {**facts, key: value})
    with pytest.raises(RunError, match="does not hold the state of this training"):
        resume_training(path, make_training(0))
    save_tensors(path, {**tensors, "optimizer.0.exp_avg": torch.zeros(9, 9)}, facts)
    with pytest.raises(RunError, match="a state of shape"):
        resume_training(path, make_training(0))
