"""A shared batch norm of a process that is alone is a plain one; tests/training/test_together.py has two."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from pipeline.model.shared_norm import each_for_itself, share_batch_norms


def assert_plain(device: str, dtype: torch.dtype, memory: torch.memory_format, *, tolerance: float) -> None:
    """Outputs, gradients and statistics of two passes are those of the norm before it was shared."""
    torch.manual_seed(0)
    plain = BatchNormAct2d(8).to(device)
    nn.init.uniform_(plain.weight, 0.5, 1.5)
    shared = copy.deepcopy(plain)
    share_batch_norms(shared)
    assert type(shared) is not type(plain)
    for _ in range(2):
        images = (torch.randn(6, 8, 5, 4, device=device) * 2 + 3).to(dtype).contiguous(memory_format=memory)
        pull = torch.randn_like(images)
        found = []
        for norm in (plain, shared):
            x = images.clone().requires_grad_()
            y = norm(x)
            (y * pull).sum().backward()
            found.append([y, x.grad, *(each.grad for each in norm.parameters()), *norm.buffers()])
        torch.testing.assert_close(found[1], found[0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)], ids=str)
def test_alone_it_is_a_plain_one(dtype: torch.dtype, tolerance: float, memory: torch.memory_format) -> None:
    assert_plain("cpu", dtype, memory, tolerance=tolerance)


def test_its_backward_gives_what_a_gpu_asks_for_in_channels_last_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU does without; the kernel of a GPU stops with an internal assertion."""
    norm, asked = nn.BatchNorm2d(3), list[tuple[Any, ...]]()
    share_batch_norms(norm)
    backward = torch.ops.aten.native_batch_norm_backward

    def spy(*arguments: Any) -> Any:
        asked.append(arguments)
        return backward(*arguments)

    monkeypatch.setattr(torch.ops.aten, "native_batch_norm_backward", spy)
    x = torch.randn(4, 3, 2, 2)
    norm(x).sum().backward()
    (_, _, _, _, _, mean, inverse, *_) = asked[0]
    torch.testing.assert_close(mean, x.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(inverse, (x.var(dim=(0, 2, 3), correction=0) + norm.eps).rsqrt())


def test_it_is_a_plain_one_for_a_while_and_shared_again() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.BatchNorm2d(2), BatchNormAct2d(2)), nn.LayerNorm(2))
    plain = [type(module) for module in model.modules()]
    share_batch_norms(model)
    shared = [type(module) for module in model.modules()]
    assert sum(before is not after for before, after in zip(plain, shared, strict=True)) == 3
    with each_for_itself(model):
        assert [type(module) for module in model.modules()] == plain
    assert [type(module) for module in model.modules()] == shared
