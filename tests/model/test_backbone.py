from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from pipeline.errors import ConfigError
from pipeline.model.backbone import build_backbone


def test_a_stage_is_what_timm_computes_for_it() -> None:
    images = torch.randn(2, 3, 70, 100)
    whole: Any = timm.create_model("test_resnet", features_only=True).eval()
    for features, stride in zip(whole(images), whole.feature_info.reduction(), strict=True):
        backbone = build_backbone("test_resnet", pretrained=False, feature_stride=stride, size=(70, 100)).eval()
        backbone.body.load_state_dict(whole.state_dict(), strict=False)
        assert (backbone.channels, backbone.stride) == (features.shape[1], stride)
        torch.testing.assert_close(backbone(images), features)


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("test_resnet", 16),
        ("test_convnext", 32),
        ("test_efficientnet", 32),
        ("test_vit", 16),
        ("swin_tiny_patch4_window7_224", 16),
    ],
)
def test_keeps_only_what_it_computes(name: str, stride: int) -> None:
    """A parameter without a gradient would waste disk space, and fail in data-parallel training."""
    backbone = build_backbone(name, pretrained=False, feature_stride=stride, size=(64, 96))
    features = backbone(torch.randn(2, 3, 64, 96))
    assert features.shape == (2, backbone.channels, 64 // stride, 96 // stride)
    features.square().sum().backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


def test_a_vit_gives_its_normalised_patch_tokens() -> None:
    backbone = build_backbone("test_vit", pretrained=False, feature_stride=16, size=(160, 160)).eval()
    whole: Any = timm.create_model("test_vit", num_classes=0).eval()
    whole.load_state_dict(backbone.body.state_dict(), strict=False)
    images = torch.randn(1, 3, 160, 160)
    tokens = whole.forward_features(images)[:, whole.num_prefix_tokens :]
    torch.testing.assert_close(backbone(images), tokens.transpose(1, 2).unflatten(2, (10, 10)))


def test_a_swin_gives_its_normalised_map_channels_first() -> None:
    name = "swin_tiny_patch4_window7_224"
    backbone = build_backbone(name, pretrained=False, feature_stride=32, size=(224, 224)).eval()
    whole: Any = timm.create_model(name, num_classes=0).eval()
    whole.load_state_dict(backbone.body.state_dict())
    images = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(backbone(images), whole.forward_features(images).permute(0, 3, 1, 2))


@pytest.mark.parametrize(("name", "multiple"), [("test_resnet", 1), ("test_vit", 16), ("tresnet_m", 4)])
def test_other_sizes_are_read_or_an_error_names_the_multiple(name: str, multiple: int) -> None:
    stride = 16 if name == "test_vit" else 32
    backbone = build_backbone(name, pretrained=False, feature_stride=stride, size=(64, 64)).eval()
    assert backbone.multiple == multiple
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 96, 32)).shape[2:] == (96 // stride, 32 // stride)
        assert backbone(torch.randn(1, 3, 32 + multiple, 32)).shape[0] == 1
    if multiple > 1:
        with pytest.raises(ConfigError, match=f"multiples of {multiple}\n.*got: +65 x 64"):
            backbone(torch.randn(1, 3, 65, 64))


def test_a_network_for_a_single_size_names_it_in_the_error() -> None:
    backbone = build_backbone("test_maxvit", pretrained=False, feature_stride=32, size=(64, 64)).eval()
    assert backbone.multiple is None
    assert backbone(torch.randn(1, 3, 64, 64)).shape[2:] == (2, 2)
    with pytest.raises(ConfigError, match="64 x 64, the size"):
        backbone(torch.randn(1, 3, 96, 96))


def test_the_image_size_is_checked_before_anything_is_built() -> None:
    with pytest.raises(ConfigError, match=r"images\.size"):
        build_backbone("test_vit", pretrained=False, feature_stride=16, size=(100, 160))


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_change_the_first_layer(channels: int) -> None:
    backbone = build_backbone("test_resnet", pretrained=False, feature_stride=32, channels=channels, size=(64, 64))
    assert backbone(torch.randn(1, channels, 64, 64)).shape[1] == backbone.channels


def test_has_the_statistics_of_its_pretraining() -> None:
    resnet = build_backbone("resnet18", pretrained=False, feature_stride=32, size=(64, 64))
    assert resnet.mean == (0.485, 0.456, 0.406)
    assert resnet.std == (0.229, 0.224, 0.225)


class TestMistakes:
    def test_an_unknown_name_gets_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match="did you mean 'resnet50'"):
            build_backbone("resnet5O", pretrained=False, feature_stride=32, size=(64, 64))

    def test_an_unknown_tag_gets_the_known(self) -> None:
        with pytest.raises(ConfigError, match=r"expected: .*resnet18\.a1_in1k"):
            build_backbone("resnet18.a1_in2k", pretrained=False, feature_stride=32, size=(64, 64))

    @pytest.mark.parametrize("name", ["hf-hub:timm/resnet18.a1_in1k", "local-dir:/tmp"])
    def test_no_folder_or_hub_is_read_for_a_name(self, name: str) -> None:
        with pytest.raises(ConfigError, match=r"unknown model\.backbone"):
            build_backbone(name, pretrained=False, feature_stride=32, size=(64, 64))

    def test_a_stride_without_a_stage_lists_the_others(self) -> None:
        with pytest.raises(ConfigError, match=r"model.feature_stride=64\n.*one of 2, 4, 8, 16, 32"):
            build_backbone("test_resnet", pretrained=False, feature_stride=64, size=(64, 64))
        with pytest.raises(ConfigError, match="one of 16"):
            build_backbone("test_vit", pretrained=False, feature_stride=32, size=(64, 64))

    def test_weights_that_cannot_be_loaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nowhere")
        with pytest.raises(ConfigError, match=r"pretrained weights(.|\n)*model.pretrained=false"):
            build_backbone("test_resnet", pretrained=True, feature_stride=32, size=(64, 64))


class TestFreezing:
    def test_a_resnet_as_the_official_recipe(self) -> None:
        backbone = build_backbone("resnet18", pretrained=False, feature_stride=32, size=(64, 64))
        backbone.freeze(stem=True, batch_norm=True)
        trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
        assert trained
        assert not [name for name in trained if "bn" in name or "downsample.1" in name]
        assert {name.split(".")[1] for name in trained} == {"layer2", "layer3", "layer4"}

    def test_frozen_statistics_stay_in_training(self) -> None:
        backbone = build_backbone("test_resnet", pretrained=False, feature_stride=32, size=(64, 64))
        backbone.freeze(stem=False, batch_norm=True)
        before = {name: value.clone() for name, value in backbone.named_buffers()}
        assert before
        backbone.train()
        backbone(torch.randn(2, 3, 64, 64))
        assert all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())

    @pytest.mark.parametrize(("name", "stride"), [("test_vit", 16), ("test_convnext", 32)])
    def test_every_kind_of_network_has_a_stem(self, name: str, stride: int) -> None:
        backbone = build_backbone(name, pretrained=False, feature_stride=stride, size=(64, 64))
        backbone.freeze(stem=True, batch_norm=False)
        frozen = [parameter for parameter in backbone.parameters() if not parameter.requires_grad]
        assert 0 < len(frozen) < len(list(backbone.parameters()))
        assert not next(backbone.body.parameters()).requires_grad
