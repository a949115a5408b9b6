"""A shared batch norm on a GPU, in each precision and layout of memory."""

from __future__ import annotations

import pytest
import torch

from tests.model.test_shared_norm import assert_plain

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 1e-2), (torch.bfloat16, 5e-2)], ids=str
)
def test_alone_it_is_a_plain_one(dtype: torch.dtype, tolerance: float, memory: torch.memory_format) -> None:
    assert_plain("cuda", dtype, memory, tolerance=tolerance)
