"""The backbones of official Query2Label checkpoints: timm's name for each, and for its tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from timm.models.swin_transformer import checkpoint_filter_fn as to_timm_swin
from timm.models.tresnet import checkpoint_filter_fn as to_timm_tresnet
from torch import Tensor, nn

from pipeline.errors import ConfigError, listing

# (bottleneck blocks?, blocks per stage) → timm's name
_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
}
# blocks per stage → timm's name
_TRESNETS: dict[tuple[int, ...], str] = {
    (4, 5, 18, 3): "tresnet_l",
    (3, 4, 23, 3): "tresnet_v2_l",
    (4, 5, 24, 3): "tresnet_xl",
}
# (width of the first stage, side of a window) → timm's name
_SWINS = {
    (128, 7): "swin_base_patch4_window7_224",
    (128, 12): "swin_base_patch4_window12_384",
    (192, 7): "swin_large_patch4_window7_224",
    (192, 12): "swin_large_patch4_window12_384",
}


def backbone_name(state: Mapping[str, Tensor]) -> tuple[str, int]:
    """timm's name of the backbone and the image size it was published with."""
    found: str | None = None
    size = 448
    if "backbone.0.body.body.conv1.0.weight" in state:
        found = _TRESNETS.get(_blocks(state, "backbone.0.body.body"))
    elif "backbone.0.body.conv1.weight" in state:
        bottleneck = "backbone.0.body.layer1.0.conv3.weight" in state
        found = _RESNETS.get((bottleneck, _blocks(state, "backbone.0.body")))
    elif "backbone.0.layers.0.blocks.0.attn.relative_position_bias_table" in state:
        table = state["backbone.0.layers.0.blocks.0.attn.relative_position_bias_table"]
        window = (round(len(table) ** 0.5) + 1) // 2  # the table has (2 x window - 1)^2 rows
        size = {7: 224, 12: 384}.get(window, size)
        found = _SWINS.get((len(state["backbone.0.patch_embed.proj.weight"]), window))
    elif any(key.startswith("backbone.0.stage0.") for key in state):
        raise ConfigError(
            "the backbone of this checkpoint, CvT-w24, is not available: timm has no CvT",
            expected="ResNet, TResNet or Swin",
            got="convolutional token embeddings and projections (backbone.0.stage0 ...)",
            remedy="use one of the official checkpoints with another backbone",
        )
    if found is None:
        raise ConfigError(
            "the backbone of this checkpoint is not known",
            expected=listing([*_RESNETS.values(), *_TRESNETS.values(), *_SWINS.values()], limit=20),
            got=listing(key for key in state if key.startswith("backbone.0.")) or "no backbone.0 keys",
            remedy="use a checkpoint with one of these backbones",
        )
    return found, size


def _blocks(state: Mapping[str, Tensor], prefix: str) -> tuple[int, ...]:
    return tuple(count_numbered(state, f"{prefix}.layer{stage}") for stage in range(1, 5))


def count_numbered(keys: Iterable[str], prefix: str) -> int:
    """The number of numbered modules directly below `prefix`."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return len({found.group(1) for key in keys if (found := pattern.match(key))})


def backbone_tensors(state: Mapping[str, Tensor], backbone: str, body: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Official key → names in our model, with tensors; timm converts the original names of TResNet and Swin."""
    prefix = "backbone.0." if backbone.startswith("swin") else "backbone.0.body."
    original = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith("backbone.0.")}
    convert: Callable[..., dict[str, Tensor]] | None = None
    if backbone.startswith("swin"):
        convert = to_timm_swin
    elif backbone.startswith("tresnet"):
        convert = to_timm_tresnet
    converted = original if convert is None else convert(original, body)
    keys = [key for key in state if key.startswith("backbone.0.")]
    pairs = zip(keys, converted.items(), strict=True)
    return {key: {f"backbone.body.{name}": tensor} for key, (name, tensor) in pairs}
