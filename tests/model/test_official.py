from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.model import load_official_checkpoint
from pipeline.model.position import sine_position_encoding


def parity_folder() -> Path:
    folders = (parent / "shared" / "parity" for parent in Path(__file__).resolve().parents)
    return next((folder for folder in folders if folder.is_dir()), Path("none"))


CASES = sorted(path.stem for path in parity_folder().glob("*.json"))


@pytest.mark.skipif(not CASES, reason="the reference cases are not beside this checkout")
@pytest.mark.parametrize("name", CASES)
def test_answers_as_the_official_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(parity_folder()))
    from reference_weights import reference_checkpoint, reference_images  # type: ignore[import-not-found]

    case = json.loads((parity_folder() / f"{name}.json").read_text())
    options = case["options"]
    model = load_official_checkpoint(reference_checkpoint(case["shapes"]), num_heads=options["nheads"])
    images = reference_images(case["case"], case["batch"], options["img_size"])
    with torch.no_grad():
        features = model.backbone(images)
        attention = model(images, return_attention=True)[1]
        torch.testing.assert_close(model(images), torch.tensor(case["logits"]), rtol=0, atol=1e-4)
    assert list(features.shape) == case["feature_map"]["shape"]
    assert features.mean().item() == pytest.approx(case["feature_map"]["mean"], rel=1e-4)
    expected = case["cross_attention_last_layer"]
    mean = attention[-1].mean(dim=1).flatten(2)
    assert list(mean.shape) == expected["shape"]
    torch.testing.assert_close(mean[0, 0], torch.tensor(expected["label0_image0"]), rtol=0, atol=1e-5)
    channels, height, width = case["position"]["shape"]
    position = sine_position_encoding(height, width, channels)[0]
    for places, key in (((slice(8), 0, 0), "corner"), ((slice(-8, None), -1, -1), "last")):
        torch.testing.assert_close(position[places], torch.tensor(case["position"][key]), rtol=0, atol=1e-5)
    assert model.load_report is not None
    assert set(model.load_report.used) == set(case["shapes"])
    del sys.modules["reference_weights"]


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    """An official-format state dict of a ResNet-18 with one small decoder layer for three labels."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / 10

    layer = "transformer.decoder.layers.0."
    head = {
        "input_proj.weight": draw(16, 512, 1, 1),
        "input_proj.bias": draw(16),
        layer + "multihead_attn.in_proj_weight": draw(48, 16),
        layer + "multihead_attn.in_proj_bias": draw(48),
        layer + "multihead_attn.out_proj.weight": draw(16, 16),
        layer + "multihead_attn.out_proj.bias": draw(16),
        layer + "linear1.weight": draw(24, 16),
        layer + "linear1.bias": draw(24),
        layer + "linear2.weight": draw(16, 24),
        layer + "linear2.bias": draw(16),
        **{f"{layer}norm{i}.{kind}": draw(16) for i in (2, 3) for kind in ("weight", "bias")},
        "transformer.decoder.norm.weight": draw(16),
        "transformer.decoder.norm.bias": draw(16),
        "query_embed.weight": draw(3, 16),
        "fc.W": draw(1, 3, 16),
        "fc.b": draw(1, 3),
    }
    resnet = timm.create_model("resnet18", num_classes=0).state_dict()
    body = {f"backbone.0.body.{key}": value for key, value in resnet.items() if "num_batches" not in key}
    return {**body, **head}


class TestContainers:
    def test_prefix_and_wrapping_make_no_difference(self, checkpoint: dict[str, Tensor], tmp_path: Path) -> None:
        wrapped = {
            "epoch": 7,
            "best_mAP": np.float64(84.9),
            "state_dict": {f"module.{key}": value for key, value in checkpoint.items()},
        }
        torch.save(wrapped, tmp_path / "checkpoint.pkl")
        images = torch.randn(1, 3, 64, 64)
        expected = load_official_checkpoint(checkpoint)(images)
        for source in (wrapped, tmp_path / "checkpoint.pkl", str(tmp_path / "checkpoint.pkl")):
            assert torch.equal(load_official_checkpoint(source)(images), expected)

    def test_a_file_that_would_execute_something_is_refused(self, tmp_path: Path) -> None:
        torch.save({"state_dict": Path("x")}, tmp_path / "bad.pkl")
        with pytest.raises(ConfigError, match=r"bad\.pkl: not readable"):
            load_official_checkpoint(tmp_path / "bad.pkl")

    def test_a_missing_or_broken_file(self, tmp_path: Path) -> None:
        (tmp_path / "broken.pkl").write_bytes(b"not a checkpoint")
        for name in ("broken.pkl", "none.pkl"):
            with pytest.raises(ConfigError, match=f"{name}: not readable"):
                load_official_checkpoint(tmp_path / name)

    def test_something_else_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="not a checkpoint of the official"):
            load_official_checkpoint({"fc.weight": torch.zeros(2)})


class TestReport:
    def test_names_what_was_left_out_and_why(
        self, checkpoint: dict[str, Tensor], caplog: pytest.LogCaptureFixture
    ) -> None:
        extra = {
            "backbone.1.pe": torch.zeros(1, 16, 14, 14),
            "backbone.0.body.bn1.num_batches_tracked": torch.tensor(1),
            "temperature": torch.ones(1),
            "args": "resnet18",
        }
        with caplog.at_level(logging.INFO):
            model = load_official_checkpoint({**checkpoint, **extra})
        assert model.load_report is not None
        assert set(model.load_report.ignored) == set(extra)
        assert set(model.load_report.used) == set(checkpoint)
        assert "position encoding" in model.load_report.ignored["backbone.1.pe"]
        assert "ignored temperature: the model has no such part" in caplog.text

    @pytest.mark.parametrize(
        ("key", "ours"),
        [
            ("backbone.0.body.layer3.1.bn2.running_var", "backbone.body.layer3.1.bn2.running_var"),
            ("transformer.decoder.norm.bias", "decoder.norm.bias"),
        ],
    )
    def test_a_checkpoint_with_a_hole_is_refused(self, checkpoint: dict[str, Tensor], key: str, ours: str) -> None:
        partial = {name: value for name, value in checkpoint.items() if name != key}
        with pytest.raises(ConfigError, match=f"lacks 1 tensors(.|\n)*{ours}"):
            load_official_checkpoint(partial)

    def test_keeps_label_names(self, checkpoint: dict[str, Tensor]) -> None:
        model = load_official_checkpoint(checkpoint, label_names=["cat", "cow", "dog"])
        assert model.label_names == ("cat", "cow", "dog")
        with pytest.raises(ConfigError, match="expected: 3 names"):
            load_official_checkpoint(checkpoint, label_names=["cat"])


def test_heads_that_do_not_divide_are_refused(checkpoint: dict[str, Tensor]) -> None:
    with pytest.raises(ConfigError, match="num_heads"):
        load_official_checkpoint(checkpoint, num_heads=5)


def test_is_ready_to_predict(checkpoint: dict[str, Tensor]) -> None:
    assert not load_official_checkpoint(checkpoint).training
