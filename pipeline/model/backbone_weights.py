"""`model.backbone_weights`: the backbone starts from a local file or folder, and nothing is downloaded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import timm
import torch
from timm.models import split_model_name_tag

from pipeline.errors import ConfigError, listing
from pipeline.model.backbone import Backbone
from pipeline.model.backbone_files import KEY, BackboneFile, read_backbone_file
from pipeline.model.backbone_fit import (
    LATER,
    UNKNOWN,
    Fit,
    State,
    converted,
    count,
    fit_state,
    whole_network,
    without_prefixes,
)
from pipeline.model.timm_registry import same_architecture

_TRIED = 12  # networks that a file is compared with
_PLENTY = 0.95  # share of a network's tensors that its own file has
_FAMILIES = {  # a key, and networks that have it
    "layer1.0.conv1.weight": "resnet18 resnet34 resnet50 resnet101 resnext50_32x4d seresnet50 resnet50d resnet152",
    "blocks.0.0.conv_dw.weight": "tf_efficientnet_lite0 efficientnet_b0 efficientnet_b1 efficientnet_b2 "
    "efficientnet_b3 efficientnet_b4 mobilenetv2_100 mobilenetv3_large_100",
    "blocks.0.0.conv.weight": "efficientnetv2_rw_t efficientnetv2_rw_s tf_efficientnetv2_b0 tf_efficientnetv2_s "
    "tf_efficientnetv2_m tf_efficientnetv2_l",
    "stages.0.blocks.0.mlp.grn.weight": "convnextv2_atto convnextv2_femto convnextv2_pico convnextv2_nano "
    "convnextv2_tiny convnextv2_base convnextv2_large",
    "stages.0.blocks.0.conv_dw.weight": "convnext_tiny convnext_small convnext_base convnext_large",
    "layers.0.blocks.0.attn.relative_position_bias_table": "swin_tiny_patch4_window7_224 "
    "swin_small_patch4_window7_224 swin_base_patch4_window7_224 swin_large_patch4_window7_224",
    "layers.0.blocks.0.attn.logit_scale": "swinv2_tiny_window8_256 swinv2_small_window8_256 swinv2_base_window8_256",
    "blocks.0.ls1.gamma": "vit_small_patch14_dinov2 vit_base_patch14_dinov2 vit_large_patch14_dinov2 "
    "vit_small_patch14_reg4_dinov2 vit_base_patch14_reg4_dinov2",
    "blocks.0.gamma_1": "vit_small_patch16_dinov3 vit_base_patch16_dinov3 vit_large_patch16_dinov3",
    "blocks.0.attn.q_proj.weight": "eva02_tiny_patch14_224 eva02_small_patch14_224 eva02_base_patch14_224",
    "blocks.0.attn.qkv.weight": "vit_tiny_patch16_224 vit_small_patch16_224 vit_base_patch16_224 vit_large_patch16_224",
    "stages.0.blocks.0.conv.shortcut.expand.weight": "maxvit_tiny_tf_224 maxvit_small_tf_224 maxvit_base_tf_224",
}


def load_backbone_weights(backbone: Backbone, location: str) -> list[str]:
    """Fill `backbone` from a file or a folder, and return sentences on what was used, ignored and missing.

    A file holds a state dict of timm (`.safetensors`, `.pth`, `.pt`, `.bin`, `.pth.tar`), or is the
    weights.safetensors of a run. A folder is one of a model hub: config.json with a weights file. Its mean and std
    become the backbone's. Names and shapes are converted as timm does it for its own downloads.

    Raises:
        ConfigError: nothing is there, it cannot be read without executing code, it belongs to another network, or
            fewer than half of the backbone's tensors are in it.
    """
    file = read_backbone_file(location)
    if file.architecture is not None and not same_architecture(file.architecture, backbone.name):
        raise ConfigError(
            f"{KEY}: {location} belongs to another network than model.backbone",
            expected=f"model.backbone={backbone.name}",
            got=f"weights of {file.architecture}",
            remedy=f"set model.backbone={file.architecture}, or bring the weights of {backbone.name}",
        )
    network, convert = whole_network(backbone.name, backbone.options)
    state, outside = without_prefixes(file.state, network)
    own = backbone.body.state_dict()
    fit = fit_state(converted(state, network, convert), network, own, channels=backbone.options["in_chans"])
    _check_fit(fit, file, state, backbone, own)
    for name, tensor in fit.used.items():
        own[name].copy_(tensor)
    backbone.mean, backbone.std = file.mean or backbone.mean, file.std or backbone.std
    ignored = fit.ignored | dict.fromkeys(outside, "not a part of the backbone")
    part = f", from {file.part}" if file.part else ""
    lines = [f"{count(fit.used)} of {count(own)} backbone tensors used{part}", *fit.adapted]
    lines += [
        f"ignored {listing([name for name in ignored if ignored[name] == reason], 3)}: {reason}"
        for reason in dict.fromkeys(ignored.values())
    ]
    if fit.missing:
        lines.append(f"missing, left at random values: {listing(fit.missing)}")
    return [f"{KEY}={location}: {line}" for line in lines]


def _check_fit(fit: Fit, file: BackboneFile, state: State, backbone: Backbone, own: State) -> None:
    """Refuse a file of another network, of too few tensors, or with numbers that are not finite."""
    bad = [name for name, tensor in fit.used.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise ConfigError(
            f"{KEY}: {file.path} holds weights that are not finite numbers",
            got=f"in {listing(bad)}",
            remedy="bring another file: a network cannot start from these",
        )
    unknown = [name for name, reason in fit.ignored.items() if reason == UNKNOWN]
    few = count(fit.used) < count(own) / 2
    incomplete = len(fit.missing) > (1 - _PLENTY) * count(own)
    if not (incomplete or fit.mismatched or unknown):
        return
    better = _nearest_architecture(file, fit, backbone, incomplete=incomplete)
    if few or fit.mismatched or better:
        raise ConfigError(
            f"{KEY}: {file.path} does not fit backbone {backbone.name}"
            + (f"; did you mean model.backbone={better}?" if better else ""),
            expected=f"{count(own)} tensors such as {_shapes(own, fit.missing)}",
            got=f"{count(fit.used)} of them, and {_shapes(state, [*fit.mismatched, *unknown])}",
            remedy=(f"set model.backbone={better}, or " if better else "")
            + f"bring the weights of {backbone.name} as timm publishes them",
        )


def _shapes(state: State, first: Iterable[str]) -> str:
    """Some names and shapes of `state`, those of `first` before the others."""
    names = [name for name in dict.fromkeys([*first, *state]) if name in state]
    return ", ".join(f"{name} {tuple(state[name].shape)}" for name in names[:3])


def _nearest_architecture(file: BackboneFile, fit: Fit, backbone: Backbone, *, incomplete: bool) -> str | None:
    """The network of timm that the file fills, where it fits better than this backbone; or None.

    It has a place for more of the file's tensors, or for as many where the backbone is `incomplete`. Few networks are
    tried: those that the path names, those of a family with such keys, and those with a name like the backbone's.
    """
    known = timm.list_models()
    place = f"{file.path.parent.name}/{file.path.name}"
    named = sorted((name for name in known if name in place), key=len, reverse=True)[:3]
    keys = [key for key in _FAMILIES if any(name.endswith(key) for name in file.state)]
    family = [name for key in keys for name in _FAMILIES[key].split() if name in known]
    similar = difflib.get_close_matches(split_model_name_tag(backbone.name)[0], known, n=5)
    most = count(fit.used) + count(name for name, reason in fit.ignored.items() if reason == LATER)
    most -= incomplete
    nearest = None
    for name in list(dict.fromkeys([*named, *family, *similar]))[:_TRIED]:
        network, convert = whole_network(name, {})
        own = network.state_dict()
        tried = fit_state(converted(without_prefixes(file.state, network)[0], network, convert), network, own)
        fits = count(tried.used)
        if fits > most and fits >= _PLENTY * count(own) and not same_architecture(name, backbone.name):
            most, nearest = fits, name
    return nearest
