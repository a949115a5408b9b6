"""The attention of a trained model: the chosen labels, maps that sum to 1, and a figure."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipeline.config import ImagesConfig
from pipeline.errors import ConfigError, RunError
from pipeline.model.backbone import build_backbone
from pipeline.model.build import TrainedModel
from pipeline.model.normalize import PixelNormalizer
from pipeline.model.query2label import PooledClassifier, Query2Label
from pipeline.report.attention import Attention, draw_attention, read_attention
from pipeline.report.figures import save_figure
from pipeline.thresholds.calibration import Calibration
from tests.report.simulated import HOSTILE

LABELS = ("a", "b", "c")
IMAGE = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8)


def _trained(head: str = "q2l") -> TrainedModel:
    torch.manual_seed(0)
    backbone = build_backbone("test_resnet", pretrained=False, feature_stride=16, size=(32, 48))
    if head == "gap":
        model: torch.nn.Module = PooledClassifier(backbone, num_labels=3)
    else:
        model = Query2Label(backbone, num_labels=3, hidden_dim=16, heads=2, ffn_dim=16)
    images = ImagesConfig(size=(32, 48))
    return TrainedModel(model.eval(), PixelNormalizer([0.5] * 3, [0.2] * 3), LABELS, images)


def _read(trained: TrainedModel, labels: list[str] | None, threshold: float = 0.5):  # type: ignore[no-untyped-def]
    return read_attention(trained, IMAGE, labels=labels, thresholds=np.full(3, threshold), device=torch.device("cpu"))


def test_named_labels_come_most_probable_first_with_maps_that_sum_to_one(tmp_path: Path) -> None:
    attention = _read(_trained(), ["c", "a"])
    assert set(attention.labels) == {"a", "c"}
    assert attention.probabilities[0] >= attention.probabilities[1]
    assert attention.maps.shape == (2, 2, 2, 3)
    np.testing.assert_allclose(attention.maps.sum(axis=(2, 3)), 1, rtol=1e-5)
    save_figure(draw_attention(attention), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_by_default_the_predicted_labels_are_shown_or_the_most_probable_one() -> None:
    trained = _trained()
    assert len(_read(trained, None, threshold=0.0).labels) == 3
    assert len(_read(trained, None, threshold=1.1).labels) == 1


def test_an_unknown_label_or_a_model_without_queries_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown label 'd'"):
        _read(_trained(), ["d"])
    with pytest.raises(RunError, match="no query per label"):
        _read(_trained("gap"), None)


def test_a_row_per_label_is_drawn_with_hostile_names_as_written(tmp_path: Path) -> None:
    maps = np.zeros((len(HOSTILE), 1, 2, 2), np.float32)
    maps[:, :, 0, 0] = 1
    picture = draw_attention(Attention(np.zeros((32, 48, 1), np.uint8), HOSTILE, np.full(len(HOSTILE), 0.5), maps))
    texts = picture.axes[0].texts
    assert [text.get_text() for text in texts[1 : 2 * len(HOSTILE) : 2]] == list(HOSTILE)
    assert not any(text.get_parse_math() for text in texts[: 2 * len(HOSTILE)])
    save_figure(picture, tmp_path / "a.png")
    pixels = cv2.imread(str(tmp_path / "a.png"))
    assert pixels is not None
    for row in range(len(HOSTILE)):
        tile = pixels[40 + 133 * row : 40 + 133 * row + 107, 166:326]
        assert tile[5:20, 5:20].mean() > tile[-20:, -20:].mean() + 50  # the peak is where the attention is


def test_more_labels_than_a_picture_holds_are_refused() -> None:
    with pytest.raises(ConfigError, match="400 labels do not fit"):
        _read(_trained(), [str(number) for number in range(400)])


def test_thresholds_apply_to_calibrated_probabilities() -> None:
    thresholds, cpu = np.full(3, 0.5), torch.device("cpu")
    for intercept, predicted in ((50.0, 3), (-50.0, 1)):  # all labels, or only the most probable one
        shifted = Calibration(np.ones(3), np.full(3, intercept))
        found = read_attention(_trained(), IMAGE, labels=None, thresholds=thresholds, device=cpu, calibration=shifted)
        assert len(found.labels) == predicted
