"""Exported networks: they predict as torch does for any batch, wrong ones are refused, engines decide alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from pipeline.config import ImagesConfig, ModelConfig
from pipeline.errors import RunError
from pipeline.export import export
from pipeline.export.export import _export, _Whole
from pipeline.model.build import build_model, build_normalizer
from pipeline.model.exported import ExportFacts, load_exported
from tests.conftest import LABELS
from tests.e2e.commands import cv, submission, verb

NETWORKS: dict[str, dict[str, object]] = {
    "q2l": {},
    "groups": {"query_groups": 2},
    "gap": {"head": "gap"},
    "self-attention": {"self_attention": "all", "pre_norm": True},
    "vit": {"backbone": "test_vit", "feature_stride": 16},
}


def _facts(images: ImagesConfig, *, half: bool) -> ExportFacts:
    return ExportFacts(labels=LABELS, images=images, half=half, weights_sha256=())


def _whole(images: ImagesConfig, models: int = 1, **keys: object) -> _Whole:
    torch.manual_seed(0)
    settings = {"backbone": "test_resnet", "hidden_dim": 16, "heads": 2, "ffn_dim": 16, "feature_stride": 16, **keys}
    config = ModelConfig.model_validate(settings)
    built = [build_model(config, images, num_labels=3, pretrained=False).eval() for _ in range(models)]
    return _Whole(build_normalizer(images, built[0]), built, "probability").eval()


def _pixels(count: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("name", NETWORKS)
def test_an_export_gives_the_probabilities_of_torch_for_any_batch(name: str, suffix: str, tmp_path: Path) -> None:
    images = ImagesConfig(size=160 if name == "vit" else 32)
    half = name == "groups"
    whole, path = _whole(images, models=2 if name == "q2l" else 1, **NETWORKS[name]), tmp_path / f"model{suffix}"
    side = images.height_width[0]
    facts = _facts(images, half=half)
    _export(whole, path, _pixels(7, side), facts, lambda values: values >= 0.5)
    loaded = load_exported(path)
    assert loaded.labels == LABELS
    assert loaded.images == images
    pixels = _pixels(5, side)
    with torch.inference_mode():
        expected = whole(pixels)
    got = loaded.model(pixels.to(memory_format=torch.channels_last)).sigmoid()
    np.testing.assert_allclose(got, expected, atol=1e-2 if half else 1e-4)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        {path.name, *(["model.bin"] * (suffix == ".xml"))}
    )


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_file_that_differs_from_torch_is_refused(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = export._write

    class Off(nn.Module):
        def __init__(self, whole: nn.Module) -> None:
            super().__init__()
            self.whole = whole

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            probabilities: torch.Tensor = self.whole(pixels) + 2e-4
            return probabilities

    monkeypatch.setattr(export, "_write", lambda whole, *rest, newer: write(Off(whole).eval(), *rest, newer=False))
    images = ImagesConfig(size=32)
    with pytest.raises(RunError, match=r"differs by 0\.0002"):
        _export(_whole(images), tmp_path / f"model{suffix}", _pixels(7, 32), _facts(images, half=False), np.isfinite)
    assert not list(tmp_path.iterdir())


def test_engines_decide_as_torch_does_and_refuse_what_does_not_fit(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.parents[1], tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    tta = "predict.tta=[identity, hflip]"
    assert cv(monkeypatch, "tiny.yaml", tta) == 0
    assert submission(monkeypatch, "runs/tiny", "--out", "torch.csv") == 0
    expected = pd.read_parquet("torch.parquet")
    for engine, kind in (("onnxruntime", "onnx"), ("openvino", "openvino")):
        assert cv(monkeypatch, "tiny.yaml", tta, f"predict.engine={engine}") == 0
        capsys.readouterr()
        assert submission(monkeypatch, "runs/tiny", "--out", f"{engine}.csv") == 2
        assert f"python -m pipeline export RUN --format {kind}" in capsys.readouterr().err
        assert verb("export", "runs/tiny", "--format", kind) == 0
        assert submission(monkeypatch, "runs/tiny", "--out", f"{engine}.csv") == 0
        assert Path(f"{engine}.csv").read_bytes() == Path("torch.csv").read_bytes()
        got = pd.read_parquet(f"{engine}.parquet")
        np.testing.assert_allclose(got[list(LABELS)], expected[list(LABELS)], atol=1e-5)
    assert submission(monkeypatch, "runs/tiny", "--out", "x.csv", "--tta", "size:64") == 2
    assert "reads images of the training size only" in capsys.readouterr().err
    shutil.copy("runs/tiny/fold1/weights.safetensors", "runs/tiny/fold0/weights.safetensors")
    assert submission(monkeypatch, "runs/tiny", "--out", "x.csv") == 2
    assert "is an export of other weights" in capsys.readouterr().err
    Path("runs/tiny/fold0/model.xml").write_text("<net/>")
    assert submission(monkeypatch, "runs/tiny", "--out", "x.csv") == 2
    assert "is no export of this pipeline" in capsys.readouterr().err
