"""Which tensors of a published state dict go where in a timm network, as timm decides it for its own downloads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import timm
import torch
from timm.models import _builder
from timm.models._manipulate import adapt_input_conv
from torch import Tensor, nn

from pipeline.model.backbone_files import is_plain

COUNTER = "num_batches_tracked"  # batch norm works without it
UNKNOWN = "the network has no such part"
LATER = "comes after the stage of model.feature_stride"
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "body.", "encoder.", "net.")
_SIZED = ("pos", "attention_bias", "rope")  # parts of names whose shapes follow the image size

State = dict[str, Tensor]
Convert = Callable[..., State]


class Fit(NamedTuple):
    """What becomes of each tensor of a file, and of each tensor of a network."""

    used: State  # as the network wants them
    ignored: dict[str, str]  # name: reason
    mismatched: list[str]  # with another shape than the network's, where the image size does not explain it
    missing: list[str]
    adapted: list[str]  # sentences


def whole_network(name: str, options: Mapping[str, Any]) -> tuple[nn.Module, Convert | None]:
    """The network with all its stages but without values, and timm's conversion of published state dicts for it."""
    conversions: list[Convert | None] = []

    def keep(_: nn.Module, *, filter_fn: Convert | None = None, **__: Any) -> None:
        conversions.append(filter_fn)

    load = _builder.load_pretrained
    _builder.load_pretrained = keep  # type: ignore[assignment]  # nothing else is given the conversion
    try:
        with torch.device("meta"):
            network: nn.Module = timm.create_model(name, pretrained=True, num_classes=0, **options)
    finally:
        _builder.load_pretrained = load
    return network, conversions[0] if conversions else None


def without_prefixes(state: State, network: nn.Module) -> tuple[State, list[str]]:
    """`state` without what wrappers put before its names, and the names that the wrappers leave outside."""
    own = network.state_dict().keys()
    outside: list[str] = []
    while True:
        prefix = next((prefix for prefix in _PREFIXES if any(name.startswith(prefix) for name in state)), None)
        if prefix is None:
            return state, outside
        inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if len(own & inner.keys()) < len(own & state.keys()):  # a part of the network has this name
            return state, outside
        outside += [name for name in state if not name.startswith(prefix)]
        state = inner


def converted(state: State, network: nn.Module, convert: Convert | None) -> State:
    """`state` with the names and shapes of `network`; empty where timm's conversion fails, as for another network."""
    own = network.state_dict()
    native = all(name in own and own[name].shape == tensor.shape for name, tensor in state.items())
    if convert is None or native:  # headless files of a run, which some conversions mistake for foreign ones
        return dict(state)
    try:
        takes_model = len(inspect.signature(convert).parameters) > 1
        converted = convert(dict(state), network) if takes_model else convert(dict(state))
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return {}
    return {name: tensor for name, tensor in converted.items() if is_plain(tensor)}


def fit_state(state: State, network: nn.Module, own: State, *, channels: int = 3) -> Fit:
    """Sort `state` by its use in a network for images of `channels`, of which only the tensors `own` are kept."""
    whole: State = network.state_dict()
    pretrained: Mapping[str, Any] = getattr(network, "pretrained_cfg", {})
    heads, first = (tuple(_names(pretrained.get(key))) for key in ("classifier", "first_conv"))
    fit = Fit({}, {}, [], [], [])
    for name, source in state.items():
        tensor, is_first = source, name.removesuffix(".weight") in first
        if is_first and name in whole:
            tensor, before = _adapted(source, network.get_submodule(name.removesuffix(".weight")), channels)
            if before:
                fit.adapted.append(f"{name} adapted from {before} to {channels} channels")
        if name not in whole:
            of_head = name.startswith(("head.", *(f"{head}." for head in heads)))
            fit.ignored[name] = "the classifier of its pretraining" if of_head else UNKNOWN
        elif name not in own:
            fit.ignored[name] = LATER
        elif tensor.shape != own[name].shape:
            fit.ignored[name] = f"shape {tuple(tensor.shape)}, the network has {tuple(own[name].shape)}"
            if not is_first and not any(part in name for part in _SIZED):
                fit.mismatched.append(name)
        else:
            fit.used[name] = tensor.to(own[name].dtype)
    fit.missing.extend(name for name in own if name not in fit.used and COUNTER not in name)
    return fit


def _names(value: Any) -> Iterable[str]:
    return () if value is None else (value,) if isinstance(value, str) else value


def _adapted(weight: Tensor, layer: nn.Module, channels: int) -> tuple[Tensor, int | None]:
    """The first layer's weight for `channels`, and for how many it was made, where that differs."""
    if not isinstance(layer, nn.Conv2d) or weight.ndim != 4 or weight.shape[1] == layer.weight.shape[1]:
        return weight, None
    source = weight.shape[1] * layer.groups * channels // layer.in_channels  # a stem may fold pixels into channels
    try:
        options = {} if source == 3 else {"base_chans": source}
        return adapt_input_conv(channels, weight, **options), source
    except (AssertionError, NotImplementedError, TypeError, ValueError):
        return weight, None


def count(names: Iterable[str]) -> int:
    """The number of tensors but counters."""
    return sum(COUNTER not in name for name in names)
