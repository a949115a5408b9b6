"""The saved training state gives back every bit, in the memory layout it had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.errors import RunError
from pipeline.model.weights import load_tensors, save_tensors
from pipeline.training.checkpoint import load_training_state, save_training_state


def _objects(seed: int) -> tuple[nn.Module, nn.Module, torch.optim.AdamW]:
    torch.manual_seed(seed)
    model, ema = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)) for _ in range(2))
    model.to(memory_format=torch.channels_last)
    return model, ema, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 3, 5, 5).contiguous(memory_format=torch.channels_last)).square().sum().backward()
    optimizer.step()


def test_training_goes_on_from_a_saved_state_with_the_same_bits(tmp_path: Path) -> None:
    model, ema, optimizer = _objects(0)
    _step(model, optimizer)
    save_training_state(tmp_path / "s", model=model, ema=ema, optimizer=optimizer, facts={"records": [1]})
    other_model, other_ema, other_optimizer = _objects(1)
    facts = load_training_state(tmp_path / "s", model=other_model, ema=other_ema, optimizer=other_optimizer)
    assert facts == {"records": [1]}
    for _ in range(2):
        _step(model, optimizer)
        _step(other_model, other_optimizer)
    for ours, theirs in ((model, other_model), (ema, other_ema)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    strides = [state["exp_avg"].stride() for state in optimizer.state.values()]
    assert strides == [state["exp_avg"].stride() for state in other_optimizer.state.values()]


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
