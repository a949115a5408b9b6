"""`model.backbone_weights`: the backbone starts from a local file or folder, and nothing is downloaded."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import timm
import torch
from timm.models import _builder, split_model_name_tag
from timm.models._manipulate import adapt_input_conv
from torch import Tensor, nn

from pipeline.errors import ConfigError, listing
from pipeline.events import Listener, Note
from pipeline.model.backbone import Backbone
from pipeline.model.backbone_files import KEY, BackboneFile, is_plain, read_backbone_file
from pipeline.model.timm_registry import same_architecture

State = dict[str, Tensor]
Convert = Callable[..., State]

_COUNTER = "num_batches_tracked"  # batch norm works without it
_UNKNOWN = "the network has no such part"
_LATER = "comes after the stage of model.feature_stride"
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "body.", "encoder.", "net.")
_SIZED = ("pos", "attention_bias", "rope")  # parts of names whose shapes follow the image size
_TRIED = 12  # networks that a file is compared with
_COMPLETE = 0.95  # share of a network's tensors that its own file has
_FAMILIES = {  # a key of the file, and the networks that have it
    "layer1.0.conv1.weight": "resnet(18|34|50|101|152|50d)|resnext50_32x4d|seresnet50",
    "blocks.0.0.conv_dw.weight": "tf_efficientnet_lite0|efficientnet_b[0-4]|mobilenetv2_100|mobilenetv3_large_100",
    "blocks.0.0.conv.weight": "efficientnetv2_rw_[ts]|tf_efficientnetv2_(b0|s|m|l)",
    "stages.0.blocks.0.mlp.grn.weight": "convnextv2_(atto|femto|pico|nano|tiny|base|large)",
    "stages.0.blocks.0.conv_dw.weight": "convnext_(tiny|small|base|large)",
    "layers.0.blocks.0.attn.relative_position_bias_table": "swin_(tiny|small|base|large)_patch4_window7_224",
    "layers.0.blocks.0.attn.logit_scale": "swinv2_(tiny|small|base)_window8_256",
    "blocks.0.ls1.gamma": "vit_(small|base|large)_patch14_dinov2|vit_(small|base)_patch14_reg4_dinov2",
    "blocks.0.gamma_1": "vit_(small|base|large)_patch16_dinov3",
    "blocks.0.attn.q_proj.weight": "eva02_(tiny|small|base)_patch14_224",
    "blocks.0.attn.qkv.weight": "vit_(tiny|small|base|large)_patch16_224",
    "stages.0.blocks.0.conv.shortcut.expand.weight": "maxvit_(tiny|small|base)_tf_224",
}


def load_backbone_weights(backbone: Backbone, location: str, *, listen: Listener) -> None:
    """Fill `backbone` from a file or a folder; notes the tensors that are used, ignored and missing.

    A file is a state dict of timm or the weights.safetensors of a run; a folder has the config.json of a model hub.
    The mean and std of a run or a folder become the backbone's. Names and shapes are converted as timm does for its
    own downloads.

    Raises:
        ConfigError: the file is missing, unreadable or of another network, or has fewer than half of the tensors.
    """
    file = read_backbone_file(location)
    if file.architecture is not None and not same_architecture(file.architecture, backbone.name):
        raise ConfigError(
            f"{KEY}: {location} belongs to another network than model.backbone",
            expected=f"model.backbone={backbone.name}",
            got=f"weights of {file.architecture}",
            remedy=f"set model.backbone={file.architecture}, or bring the weights of {backbone.name}",
        )
    own = backbone.body.state_dict()
    fit = _fit(file.state, backbone.name, backbone.options, own)
    _check_fit(fit, file, backbone, own)
    for name, tensor in fit.used.items():
        own[name].copy_(tensor)
    backbone.mean, backbone.std = file.mean or backbone.mean, file.std or backbone.std
    part = f", from {file.part}" if file.part else ""
    lines = [f"{_count(fit.used)} of {_count(own)} backbone tensors used{part}", *fit.adapted]
    for reason in dict.fromkeys(fit.ignored.values()):
        names = [name for name in fit.ignored if fit.ignored[name] == reason]
        lines.append(f"ignored {listing(names, 3)}: {reason}")
    if fit.missing:
        lines.append(f"missing, left at random values: {listing(fit.missing)}")
    for line in lines:
        listen(Note(f"{KEY}={location}: {line}"))


class _Fit(NamedTuple):
    """The use of each tensor of a file in a network."""

    state: State  # the file's, without prefixes
    used: State  # with the network's names, shapes and types
    ignored: dict[str, str]  # name: reason
    mismatched: list[str]  # another shape than the network's, and the image size does not explain it
    missing: list[str]
    adapted: list[str]  # sentences


def _fit(state: State, name: str, options: Mapping[str, Any], own: State | None = None) -> _Fit:
    """Sort the tensors of a file by their use in timm's network `name`; `own` has those that are kept, None for all."""
    network, convert = _whole_network(name, options)
    whole: State = network.state_dict()
    own = whole if own is None else own
    pretrained: Mapping[str, Any] = getattr(network, "pretrained_cfg", {})
    heads, first = (
        (value,) if isinstance(value := pretrained.get(key) or (), str) else tuple(value)
        for key in ("classifier", "first_conv")
    )
    state, outside = _without_prefixes(state, whole)
    fit = _Fit(state, {}, {}, [], [], [])
    for key, tensor in _converted(state, network, convert).items():
        layer = key.removesuffix(".weight")
        if layer in first and key in whole:
            channels = options.get("in_chans", 3)
            tensor, before = _adapted(tensor, network.get_submodule(layer), channels)
            if before:
                fit.adapted.append(f"{key} adapted from {before} to {channels} channels")
        if key not in whole:
            of_head = key.startswith(("head.", *(f"{head}." for head in heads)))
            fit.ignored[key] = "the classifier of its pretraining" if of_head else _UNKNOWN
        elif key not in own:
            fit.ignored[key] = _LATER
        elif tensor.shape != own[key].shape:
            fit.ignored[key] = f"shape {tuple(tensor.shape)}, the network has {tuple(own[key].shape)}"
            if layer not in first and not any(part in key for part in _SIZED):
                fit.mismatched.append(key)
        else:
            fit.used[key] = tensor.to(own[key].dtype)
    fit.ignored.update(dict.fromkeys(outside, "not a part of the backbone"))
    fit.missing.extend(key for key in own if key not in fit.used and _COUNTER not in key)
    return fit


def _whole_network(name: str, options: Mapping[str, Any]) -> tuple[nn.Module, Convert | None]:
    """The network with all stages on the meta device, and timm's conversion of published state dicts for it."""
    conversions: list[Convert | None] = []

    def keep(_: nn.Module, *, filter_fn: Convert | None = None, **__: Any) -> None:
        conversions.append(filter_fn)

    load = _builder.load_pretrained
    _builder.load_pretrained = keep  # type: ignore[assignment]  # nothing else receives the conversion
    try:
        with torch.device("meta"):
            network: nn.Module = timm.create_model(name, pretrained=True, num_classes=0, **options)
    finally:
        _builder.load_pretrained = load
    return network, conversions[0] if conversions else None


def _without_prefixes(state: State, whole: State) -> tuple[State, list[str]]:
    """`state` without the prefixes of wrappers, and the names that do not have the prefix."""
    outside: list[str] = []
    while prefix := next((prefix for prefix in _PREFIXES if any(name.startswith(prefix) for name in state)), None):
        inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if len(whole.keys() & inner.keys()) < len(whole.keys() & state.keys()):  # the network has a part of this name
            break
        outside += [name for name in state if not name.startswith(prefix)]
        state = inner
    return state, outside


def _converted(state: State, network: nn.Module, convert: Convert | None) -> State:
    """`state` with the names and shapes of `network`; empty where timm's conversion fails, as for another network."""
    own = network.state_dict()
    native = all(name in own and own[name].shape == tensor.shape for name, tensor in state.items())
    if convert is None or native:  # some conversions take a file without a classifier for a foreign one
        return dict(state)
    arguments = (dict(state), network)[: len(inspect.signature(convert).parameters)]
    try:
        return {name: tensor for name, tensor in convert(*arguments).items() if is_plain(tensor)}
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return {}


def _adapted(weight: Tensor, layer: nn.Module, channels: int) -> tuple[Tensor, int | None]:
    """The first layer's weight for `channels`, and the number of channels in the file if that differs."""
    if not isinstance(layer, nn.Conv2d) or weight.ndim != 4 or weight.shape[1] == layer.weight.shape[1]:
        return weight, None
    source = weight.shape[1] * layer.groups * channels // layer.in_channels  # a stem may fold pixels into channels
    try:
        return adapt_input_conv(channels, weight, **({} if source == 3 else {"base_chans": source})), source
    except (AssertionError, NotImplementedError, TypeError, ValueError):
        return weight, None


def _check_fit(fit: _Fit, file: BackboneFile, backbone: Backbone, own: State) -> None:
    """Refuse a file of another network, of too few tensors, or with numbers that are not finite."""
    bad = [name for name, tensor in fit.used.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise ConfigError(
            f"{KEY}: {file.path} holds weights that are not finite numbers",
            got=f"in {listing(bad)}",
            remedy="bring another file: a network cannot start from these",
        )
    unknown = [name for name, reason in fit.ignored.items() if reason == _UNKNOWN]
    incomplete = len(fit.missing) > (1 - _COMPLETE) * _count(own)
    if not (incomplete or fit.mismatched or unknown):
        return
    better = _nearest_architecture(file, fit, backbone.name, incomplete=incomplete)
    if _count(fit.used) < _count(own) / 2 or fit.mismatched or better:
        raise ConfigError(
            f"{KEY}: {file.path} does not fit backbone {backbone.name}"
            + (f"; did you mean model.backbone={better}?" if better else ""),
            expected=f"{_count(own)} tensors such as {_shapes(own, fit.missing)}",
            got=f"{_count(fit.used)} of them, and {_shapes(fit.state, [*fit.mismatched, *unknown])}",
            remedy=(f"set model.backbone={better}, or " if better else "")
            + f"bring the weights of {backbone.name} as timm publishes them",
        )


def _nearest_architecture(file: BackboneFile, fit: _Fit, backbone: str, *, incomplete: bool) -> str | None:
    """The network of timm that the file fills and fits better than this backbone; or None.

    It uses more of the file's tensors, or as many if the backbone is `incomplete`. The networks that are tried: those
    named in the path, those of a family with such keys, and those with a name like the backbone's.
    """
    known = timm.list_models()
    place = f"{file.path.parent.name}/{file.path.name}"
    named = sorted((name for name in known if name in place), key=len, reverse=True)[:3]
    keys = [key for key in _FAMILIES if any(name.endswith(key) for name in file.state)]
    family = [name for key in keys for name in known if re.fullmatch(_FAMILIES[key], name)]
    similar = difflib.get_close_matches(split_model_name_tag(backbone)[0], known, n=5)
    most = _count(fit.used) + _count(name for name, reason in fit.ignored.items() if reason == _LATER) - incomplete
    nearest = None
    for name in list(dict.fromkeys([*named, *family, *similar]))[:_TRIED]:
        other = _fit(file.state, name, {})
        fits = _count(other.used)
        complete = fits >= _COMPLETE * (fits + len(other.missing))
        if fits > most and complete and not same_architecture(name, backbone):
            most, nearest = fits, name
    return nearest


def _count(names: Iterable[str]) -> int:
    """The number of tensors without counters."""
    return sum(_COUNTER not in name for name in names)


def _shapes(state: State, first: Iterable[str]) -> str:
    """Three names and shapes of `state`, those of `first` before others."""
    names = [name for name in dict.fromkeys([*first, *state]) if name in state]
    return ", ".join(f"{name} {tuple(state[name].shape)}" for name in names[:3])
