"""`model.weights`: a run starts from the weights of another run with other labels."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from pipeline.config import load_config
from pipeline.model.weights import load_tensors
from pipeline.training.build import build_training
from tests.conftest import LABELS
from tests.e2e.commands import cv, printed


def test_a_run_starts_from_another_runs_weights(
    finished: Path, tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = finished / "fold0/weights.safetensors"
    for name in ("train", "sample_submission"):
        path = Path(f"data/{name}.csv")
        pd.read_csv(path, dtype=str).rename(columns={"green": "yellow"}).to_csv(path, index=False)
    settings = (f"model.weights={weights}", "train.epochs=1", "model.self_attention=all")
    config = load_config(tiny_config, settings)
    started = build_training(config, fold=0, labels=["red", "yellow", "blue"], total_steps=4).model.state_dict()
    source, facts = load_tensors(weights)
    assert facts["labels"] == list(LABELS)
    for row, kept in enumerate([True, False, True]):
        for name in ("query_embed", "classifier.weight", "classifier.bias"):
            assert torch.equal(started[name][row], source[name][row]) is kept, (name, row)
    assert torch.equal(started["projection.weight"], source["projection.weight"])
    assert cv(monkeypatch, tiny_config, *settings) == 0
    assert "tensors used" in printed(capsys)


def test_weights_that_are_missing_are_refused_before_anything_is_written(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("none.safetensors", "none.pth"):
        assert cv(monkeypatch, tiny_config, f"model.weights={name}") == 2
        assert name in capsys.readouterr().err
    assert not Path("runs").exists()
