"""Mixed precision on a GPU: the same training, almost the same predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState

from pipeline.device import pick_device, resolve_precision
from tests.conftest import LABELS
from tests.e2e.commands import cv

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_as_float32_does(
    precision: str, tiny_config: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions = []
    for name in ("fp32", precision):
        AcceleratorState._reset_state(True)  # one process has one precision otherwise
        assert cv(monkeypatch, tiny_config, "--run", name, f"train.precision={name}") == 0
        frame = pd.read_parquet(workplace / "runs" / name / "oof.parquet").set_index("id")
        predictions.append(frame[list(LABELS)].to_numpy())
    assert np.isfinite(predictions[1]).all()
    assert np.abs(predictions[0] - predictions[1]).mean() < 0.05


def test_auto_is_a_mixed_precision() -> None:
    assert resolve_precision("auto", pick_device()) in ("bf16", "fp16")
