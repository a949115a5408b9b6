from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.model.official.backbones import backbone_name, backbone_tensors

SIZES = {
    "resnet18": 448,
    "resnet34": 448,
    "resnet50": 448,
    "resnet101": 448,
    "tresnet_l": 448,
    "tresnet_v2_l": 448,
    "tresnet_xl": 448,
    "swin_base_patch4_window7_224": 224,
    "swin_base_patch4_window12_384": 384,
    "swin_large_patch4_window7_224": 224,
    "swin_large_patch4_window12_384": 384,
}


def body_of(name: str) -> Any:
    """timm's network without its classifier, with shapes but without memory."""
    options: dict[str, Any] = {"strict_img_size": False} if "swin" in name else {}
    with torch.device("meta"):
        return timm.create_model(name, num_classes=0, **options)


def official_key(name: str, key: str) -> str:
    """The name of timm's tensor `key` in the code the network was first published with, in a checkpoint."""
    if name.startswith("swin"):  # Microsoft's code downsamples at the end of a stage, timm at the start
        for stage in (1, 2, 3):
            key = key.replace(f"layers.{stage}.downsample", f"layers.{stage - 1}.downsample!")
        return "backbone.0." + key.replace("!", "")
    if name.startswith("tresnet"):  # a convolution and an activated batch norm in a Sequential
        key = key.replace(".conv.", ".0.").replace(".bn.", ".1.")
    return "backbone.0.body." + key


@pytest.mark.parametrize("name", list(SIZES))
def test_is_recognised_and_every_tensor_finds_its_place(name: str) -> None:
    body = body_of(name)
    own = {key: value for key, value in body.state_dict().items() if "num_batches_tracked" not in key}
    state = {official_key(name, key): value for key, value in own.items()}
    assert len(state) == len(own) > 50
    assert backbone_name(state) == (name, SIZES[name])
    places = backbone_tensors(state, name, body)
    for key, value in own.items():
        ((place, tensor),) = places.pop(official_key(name, key)).items()
        assert place == f"backbone.body.{key}"
        assert tensor.shape == value.shape
    assert not places


def test_the_gain_of_a_tresnet_is_a_magnitude() -> None:
    """InPlaceABN, with which the official TResNets are built, scales by |weight| + 1e-5."""
    state = {"backbone.0.body.body.conv1.1.weight": torch.tensor([-2.0, 0.5])}
    places = backbone_tensors(state, "tresnet_l", body_of("tresnet_l"))
    gain = places["backbone.0.body.body.conv1.1.weight"]["backbone.body.body.conv1.bn.weight"]
    torch.testing.assert_close(gain, torch.tensor([2.00001, 0.50001]))


def test_cvt_is_named_as_missing() -> None:
    with pytest.raises(ConfigError, match="CvT-w24, is not available: timm has no CvT"):
        backbone_name({"backbone.0.stage0.patch_embed.proj.weight": torch.zeros(1)})


@pytest.mark.parametrize("keys", [["backbone.0.body.conv1.weight", "backbone.0.body.layer1.0.conv1.weight"], []])
def test_another_network_is_refused(keys: list[str]) -> None:
    state: dict[str, Tensor] = {key: torch.zeros(1) for key in keys}
    with pytest.raises(ConfigError, match="backbone of this checkpoint is not known"):
        backbone_name(state)
