"""Images with other than three channels: one of four files, from training to submission; their statistics."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.config import ImagesConfig, ModelConfig
from pipeline.model.build import build_model, build_normalizer
from pipeline.model.normalize import statistics_for
from tests.conftest import TINY
from tests.e2e.commands import cv, submission

COLOURS = ["red", "green", "blue", "yellow"]


def test_four_grey_files_per_image_are_trained_and_predicted(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in sorted((workplace / "data").glob("*/*.png")):
        image = cv2.imread(str(path))
        assert image is not None
        planes = [*image.transpose(2, 0, 1), image.max(axis=2)]
        for colour, plane in zip(COLOURS, planes, strict=True):
            assert cv2.imwrite(str(path.with_name(f"{path.stem}_{colour}.png")), np.asarray(plane))
        path.unlink()
    files = 'images: {template: "train/{id}_{channel}.png", test_template: "test/{id}_{channel}.png", channel_files: '
    text = TINY.replace("test: test.csv", f"test: test.csv, {files}[{', '.join(COLOURS)}]}}")
    (workplace / "tiny.yaml").write_text(text.replace("images: {size: 32}", "images: {size: 32, channels: 4}"))
    assert cv(monkeypatch, "tiny.yaml", "train.epochs=1") == 0
    assert submission(monkeypatch, "runs/tiny") == 0
    assert len(pd.read_csv(workplace / "runs/tiny/submission.csv")) == 6


def test_the_number_of_files_and_of_channels_must_agree(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = "competition.images={template: 't/{id}_{channel}.png', channel_files: [a, b]}"
    assert cv(monkeypatch, tiny_config, images) == 2
    assert "channel_files names 2 files per image, so images.channels must be 2, got 3" in capsys.readouterr().err


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 13])
def test_a_backbone_reads_any_number_of_channels(channels: int) -> None:
    images = ImagesConfig(size=32, channels=channels)
    config = ModelConfig(
        backbone="test_resnet", pretrained=False, feature_stride=16, hidden_dim=16, heads=2, ffn_dim=16
    )
    model = build_model(config, images, num_labels=3, pretrained=False).eval()
    normalizer = build_normalizer(images, model)

    pixels = torch.zeros((2, channels, 32, 32), dtype=torch.uint8)
    assert model(normalizer(pixels)).shape == (2, 3)


def test_further_channels_have_the_average_statistics() -> None:
    assert statistics_for((0.2, 0.4, 0.6), 5) == pytest.approx((0.2, 0.4, 0.6, 0.4, 0.4))
    assert statistics_for((0.2, 0.4, 0.6), 1) == pytest.approx((0.4,))
