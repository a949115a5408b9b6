"""Backbones from timm: one feature map of a given stride, at any image size the network can read."""

from __future__ import annotations

import functools
import inspect
from typing import Any, NamedTuple, Self

import timm
import torch
from timm.models import group_parameters
from torch import Tensor, nn

from pipeline.errors import ConfigError, listing
from pipeline.model.timm_registry import check_name, current_name, remedy_without_network

Size = tuple[int, int]  # height, width


class Backbone(nn.Module):
    """A timm network up to one stage; later layers are removed.

    Where the stage is the last and the network has a final norm, it is applied. The state dict has timm's keys with
    the prefix "body.".

    Attributes:
        channels: D, the width of the feature map.
        stride: pixels per position of the feature map.
        mean, std: of pixels between 0 and 1 in the pretraining, one number per channel.
        size: the height and width it was built for.
        multiple: image sides must be multiples of it; None where the network reads `size` only.
        options: arguments of `timm.create_model` beside the name.
    """

    def __init__(self, body: Any, *, name: str, index: int, size: Size, multiple: int | None = 1) -> None:
        super().__init__()
        stage = body.feature_info[index]
        self.channels, self.stride = int(stage["num_chs"]), int(stage["reduction"])
        self.mean, self.std = (tuple(map(float, body.pretrained_cfg[key])) for key in ("mean", "std"))
        self.name, self.index, self.size, self.multiple = name, index, size, multiple
        self.options: dict[str, Any] = {}
        self.frozen_batch_norm = False
        self._held: list[nn.Parameter] = []
        body.prune_intermediate_layers([index], prune_head=True)
        self.body = body

    def freeze(self, *, stem: bool, batch_norm: bool) -> None:
        """Freeze parts of the network during training, as the official recipe does for ResNets.

        Args:
            stem: the stem and the first group of layers, as timm groups them (ResNet: up to layer1).
            batch_norm: scale, shift and running statistics of every batch norm.
        """
        if stem:
            groups = group_parameters(self.body, self.body.group_matcher(coarse=True))
            for name in groups[0] + groups[1]:
                self.body.get_parameter(name).requires_grad_(False)
        if batch_norm:
            self.frozen_batch_norm = True
            for module in self._batch_norms():
                module.eval().requires_grad_(False)

    def hold(self, held: bool) -> None:
        """Freeze the whole network, batch statistics included, or undo that; what `freeze` froze stays frozen."""
        if held and not self._held:
            self._held = [parameter for parameter in self.parameters() if parameter.requires_grad]
        for parameter in self._held:
            parameter.requires_grad_(not held)
        if not held:
            self._held = []

    def remove_body(self) -> None:
        """Leave feature maps as they are from now on: they were computed before."""
        self.body = nn.Identity()

    def checkpoint_gradients(self) -> None:
        """Compute activations again in the backward pass instead of keeping them; ConfigError where timm cannot."""
        try:
            self.body.set_grad_checkpointing(True)
        except (AttributeError, AssertionError, TypeError):
            raise ConfigError(
                f"backbone {self.name} cannot compute its activations again in this version of timm",
                remedy="set train.gradient_checkpointing=false, or choose another model.backbone",
            ) from None

    def layers(self) -> list[list[str]]:
        """The names of all parameters, layer by layer from the stem on, as timm groups them."""
        names = [name for name, _ in self.body.named_parameters()]
        if not hasattr(self.body, "group_matcher"):
            return [[f"body.{name}" for name in names]]
        groups = group_parameters(self.body, self.body.group_matcher(coarse=False))
        return [[f"body.{name}" for name in groups[depth]] for depth in sorted(groups)]

    def train(self, mode: bool = True) -> Self:
        """Switch the mode; a network on hold and frozen batch norms stay in evaluation mode."""
        super().train(mode and not self._held)
        if self.frozen_batch_norm:
            for module in self._batch_norms():
                module.eval()
        return self

    def _batch_norms(self) -> list[nn.Module]:
        return [module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images, float (B, C, H, W), to a feature map (B, D, h, w); ConfigError as `check_size`."""
        if isinstance(self.body, nn.Identity):
            return images
        height, width = images.shape[-2:]
        self.check_size((height, width))
        return self._features(images)

    def check_size(self, size: Size) -> None:
        """Raise ConfigError for a size that the network cannot read; the error names those it can."""
        if self.multiple is None and size != self.size:
            expected = f"{self.size[0]} x {self.size[1]}, the size this kind of network was built for"
        elif self.multiple is not None and (size[0] % self.multiple or size[1] % self.multiple):
            expected = f"height and width that are multiples of {self.multiple}"
        else:
            return
        raise ConfigError(
            f"backbone {self.name} cannot read images of this size",
            expected=expected,
            got=f"{size[0]} x {size[1]}",
            remedy="change images.size (or the scale of the view), or choose another model.backbone",
        )

    def _features(self, images: Tensor) -> Tensor:
        maps = self.body.forward_intermediates(
            images, indices=[self.index], norm=True, output_fmt="NCHW", intermediates_only=True
        )
        features: Tensor = maps[0]
        return features


def build_backbone(name: str, *, pretrained: bool, feature_stride: int, channels: int = 3, size: Size) -> Backbone:
    """The timm network `name` up to its last stage of `feature_stride` pixels per position.

    Args:
        name: timm's name, today's or an older one, with or without a tag of weights ("resnet50", "resnet50.a1_in1k").
        pretrained: load timm's weights, from the local cache or the internet.
        feature_stride: 32 for the last stage of most networks; a plain ViT has its patch size only.
        channels: of the images; the first layer is adapted.
        size: height and width of the images; most networks can read others too, see `Backbone.multiple`.

    Raises:
        ConfigError: the name is unknown, there is no stage of that stride, the size cannot be read, or the
            pretrained weights cannot be loaded.
    """
    name = current_name(name)
    traits = _probe(name, feature_stride, channels, size)
    options = {"in_chans": channels, **dict(traits.options)}
    body = _create(name, pretrained, **options)
    backbone = Backbone(body, name=name, index=traits.stage, size=size, multiple=traits.multiple)
    backbone.options = options
    return backbone


class _Traits(NamedTuple):
    """The options that build a network for images of one size, and the other sizes it reads."""

    stage: int  # its index
    options: tuple[tuple[str, Any], ...]  # for timm.create_model
    multiple: int | None


@functools.cache  # it takes longer than the network itself, and a run builds the same one for every fold
def _probe(name: str, feature_stride: int, channels: int, size: Size) -> _Traits:
    """The traits of a network; raises ConfigError as `build_backbone` does, except for weights."""
    check_name(name)
    with torch.device("meta"):  # shapes without weights cost next to nothing
        plain = timm.create_model(name, num_classes=0, in_chans=channels)
        index = _stage(name, plain, feature_stride)
        options = _size_options(type(plain), size)
        body = timm.create_model(name, num_classes=0, in_chans=channels, **options)
        probe = Backbone(body, name=name, index=index, size=size)
    probe.multiple = _smallest_multiple(probe, channels)
    probe.check_size(size)
    if not _runs(probe, channels, size):
        raise ConfigError(
            f"backbone {name} cannot read images of {size[0]} x {size[1]}",
            remedy="set images.size to the size it was trained for, "
            f"{probe.body.pretrained_cfg['input_size'][1:]}, or choose another model.backbone",
        )
    return _Traits(index, tuple(options.items()), probe.multiple)


def _stage(name: str, network: Any, feature_stride: int) -> int:
    """The index of the last stage with that stride."""
    if not hasattr(network, "prune_intermediate_layers"):
        raise ConfigError(
            f"model.backbone '{name}' does not give feature maps in this version of timm",
            remedy="choose a network with feature maps: a residual network, ConvNeXt, Swin, ViT, ...",
        )
    strides = [int(stage["reduction"]) for stage in network.feature_info]
    if feature_stride not in strides:
        raise ConfigError(
            f"backbone {name} has no stage with model.feature_stride={feature_stride}",
            expected=f"one of {listing(sorted(set(strides)), limit=10)}",
            got=str(feature_stride),
            remedy="set model.feature_stride to one of these",
        )
    return len(strides) - 1 - strides[::-1].index(feature_stride)


def _size_options(network: type, size: Size) -> dict[str, Any]:
    """The options that let a network of this class read any size, or else this one."""
    known = inspect.signature(network).parameters
    if "strict_img_size" in known:  # Swin: windows slide over any map
        return {"strict_img_size": False}
    if "dynamic_img_size" in known:  # ViT: position embeddings are resampled
        return {"dynamic_img_size": True}
    return {"img_size": size} if "img_size" in known else {}


def _smallest_multiple(probe: Backbone, channels: int) -> int | None:
    """The smallest step between image sides the network can read, found by trying divisors of its stride."""
    base = [-(-side // probe.stride) * probe.stride for side in probe.size]
    for step in (step for step in range(1, probe.stride + 1) if probe.stride % step == 0):
        if _runs(probe, channels, (base[0] + step, base[1] + step)):
            return step
    return None


def _runs(probe: Backbone, channels: int, size: Size) -> bool:
    """Whether the network on the meta device accepts images of this size."""
    try:
        with torch.no_grad():
            probe.eval()._features(torch.empty(1, channels, *size, device="meta"))
    except (AssertionError, RuntimeError, ValueError):
        return False
    return True


def _create(name: str, pretrained: bool, **options: Any) -> nn.Module:
    try:
        network: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
    except (OSError, RuntimeError, ValueError) as error:
        if not pretrained:
            raise
        raise ConfigError(
            f"the pretrained weights of backbone {name} cannot be loaded",
            got=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            remedy=remedy_without_network(name),
        ) from error
    return network
