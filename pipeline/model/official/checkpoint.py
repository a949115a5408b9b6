"""Loads checkpoints of the official Query2Label code (github.com/SlongLiu/query2labels)."""

from __future__ import annotations

import argparse
import logging
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ConfigError, listing
from pipeline.machine import regular
from pipeline.model.backbone import build_backbone
from pipeline.model.loading import LoadReport, load_for_labels
from pipeline.model.official.backbones import backbone_name, backbone_tensors, count_numbered
from pipeline.model.query2label import SELF_ATTENTION, Query2Label

_log = logging.getLogger(__name__)

# Keys without learnt values, with the reason why they are left out.
_RECOMPUTED = {
    "backbone.1.pe": "the position encoding is computed for every map size",
    "relative_position_index": "Swin's window indices are computed",
    "attn_mask": "Swin's window masks are computed for every map size",
    "num_batches_tracked": "a counter that frozen batch norm does not use",
}
_REMEDY = (
    "check the path; where the file holds more than tensors and numbers, save its state_dict alone "
    "on a machine that trusts it"
)
_RENAMED = (
    ("transformer.", ""),
    (".self_attn.", ".self_attention."),
    (".multihead_attn.", ".cross_attention."),
    (".out_proj.", ".out."),
    (".linear1.", ".feed_forward.0."),
    (".linear2.", ".feed_forward.3."),
    ("input_proj.", "projection."),
    ("query_embed.weight", "query_embed"),
    ("fc.W", "classifier.weight"),
    ("fc.b", "classifier.bias"),
)


def load_official_checkpoint(
    checkpoint: str | Path | Mapping[str, Any],
    *,
    num_heads: int = 4,
    label_names: Sequence[str] | None = None,
) -> Query2Label:
    """The model of an official checkpoint, in evaluation mode; its keys and shapes give the options.

    The model's `load_report`, which is logged too, lists every key. Images must be normalised by `backbone.mean` and
    `backbone.std`: the official recipes use those of the backbone's pretraining.

    Args:
        checkpoint: a path (read with `weights_only=True`) or its content: a state dict, or a mapping with
            one under `state_dict`; with or without `module.` before the keys.
        num_heads: of every attention; the shapes do not show it.
        label_names: of the K outputs in order, kept as the model's `label_names`.

    Raises:
        ConfigError: the file is unreadable or no official checkpoint, its backbone is not available, tensors
            are missing, or heads or label names do not fit.
    """
    content = checkpoint if isinstance(checkpoint, Mapping) else read_official_checkpoint(Path(checkpoint))
    state, ignored = _state_dict(content, "FILE")
    layout = _layout(state)
    names = _checked_names(label_names, layout.num_labels)
    model = _build(layout, num_heads)
    renamed = backbone_tensors(state, layout.backbone, model.backbone.body) | _head_tensors(state)
    outputs = names or tuple(str(output) for output in range(layout.num_labels))
    ours = {name: tensor for parts in renamed.values() for name, tensor in parts.items()}
    loaded = load_for_labels(model, ours, labels=outputs, source_labels=outputs)
    for key, parts in renamed.items():
        reasons = [loaded.ignored[name] for name in parts if name in loaded.ignored]
        if reasons:
            ignored[key] = reasons[0]
    report = LoadReport(tuple(key for key in state if key not in ignored), ignored, loaded.missing)
    if report.missing:
        raise ConfigError(
            f"the checkpoint lacks {len(report.missing)} tensors of the model that its other keys describe",
            expected=listing(report.missing),
            got=str(report),
            remedy="use a complete checkpoint of the official code",
        )
    _log.info("official checkpoint (%s): %s", layout.backbone, report)
    model.load_report, model.label_names = report, names
    return model.eval()


class _Layout(NamedTuple):
    """The options of the official model, inferred from its state dict."""

    backbone: str
    image_size: int
    num_labels: int
    hidden_dim: int
    ffn_dim: int
    encoder_layers: int
    self_attention: tuple[bool, ...]  # of each decoder layer
    input_projection: bool
    pre_norm: bool


def read_official_checkpoint(path: Path) -> Mapping[str, Any]:
    """The content of an official checkpoint. Raises ConfigError: the file is unreadable or no official checkpoint."""
    content = read_checkpoint(path, remedy=_REMEDY)
    _state_dict(content, path)
    return content


def _state_dict(content: Mapping[str, Any], path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by official key without prefix, and the keys that were left out, each with the reason."""
    entries = content.get("state_dict", content)
    state, ignored = {}, {}
    for key, value in entries.items():
        name = key.removeprefix("module.")
        reason = "not a tensor" if not isinstance(value, Tensor) else _reason_to_skip(name)
        if reason is not None:
            ignored[name] = reason
        else:
            state[name] = value
    if not {"query_embed.weight", "fc.W", "fc.b"} <= set(state):
        raise ConfigError(
            "this is not a checkpoint of the official Query2Label code",
            expected="keys such as query_embed.weight, fc.W and fc.b, at the top or under state_dict",
            got=listing(content),
            remedy="give the .pkl file as downloaded, or its state_dict; for the weights of a backbone alone leave "
            f"model.weights out and set model.backbone_weights={path}",
        )
    return state, ignored


def read_checkpoint(path: Path, *, remedy: str) -> Mapping[str, Any]:
    """The mapping that `torch.save` wrote to `path`, read without executing anything; empty for another value.

    Raises:
        ConfigError: the file is unreadable or holds more than tensors and plain values; with this remedy.
    """
    # Scores saved with the weights are numpy scalars, and options a namespace: they execute nothing.
    scalar = np.float64(0).__reduce__()[0]
    harmless: list[Any] = [np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32))]
    harmless += [argparse.Namespace]
    harmless += [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    try:
        with torch.serialization.safe_globals(harmless):
            content = torch.load(regular(path), map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"{path}: not readable as a checkpoint",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
            remedy=remedy,
        ) from error
    return content if isinstance(content, Mapping) else {}


def _reason_to_skip(name: str) -> str | None:
    return next((why for part, why in _RECOMPUTED.items() if name == part or name.endswith(f".{part}")), None)


def _layout(state: Mapping[str, Tensor]) -> _Layout:
    backbone, image_size = backbone_name(state)
    num_labels, hidden_dim = state["query_embed.weight"].shape
    decoder = "transformer.decoder.layers"
    layers = count_numbered(state, decoder)
    return _Layout(
        backbone=backbone,
        image_size=image_size,
        num_labels=num_labels,
        hidden_dim=hidden_dim,
        ffn_dim=len(state[f"{decoder}.0.linear1.weight"]) if layers else 0,
        encoder_layers=count_numbered(state, "transformer.encoder.layers"),
        self_attention=tuple(f"{decoder}.{i}.self_attn.in_proj_weight" in state for i in range(layers)),
        input_projection="input_proj.weight" in state,
        pre_norm="transformer.encoder.norm.weight" in state,
    )


def _checked_names(label_names: Sequence[str] | None, num_labels: int) -> tuple[str, ...] | None:
    if label_names is not None and len(label_names) != num_labels:
        raise ConfigError(
            "the label names do not fit the checkpoint",
            expected=f"{num_labels} names",
            got=f"{len(label_names)}: {listing(label_names)}",
            remedy="give one name per output, in the order the checkpoint was trained with",
        )
    return None if label_names is None else tuple(label_names)


def _build(layout: _Layout, num_heads: int) -> Query2Label:
    if not layout.self_attention or layout.hidden_dim % num_heads:
        raise ConfigError(
            "the checkpoint's transformer cannot be built",
            expected="at least one decoder layer, and a width divisible by num_heads",
            got=f"{len(layout.self_attention)} decoder layers, width {layout.hidden_dim}, {num_heads=}",
            remedy="give the num_heads the checkpoint was trained with",
        )
    first, others = layout.self_attention[0], any(layout.self_attention[1:])
    kinds = {flags: kind for kind, flags in SELF_ATTENTION.items()}
    backbone = build_backbone(
        layout.backbone, pretrained=False, feature_stride=32, size=(layout.image_size, layout.image_size)
    )
    return Query2Label(
        backbone,
        num_labels=layout.num_labels,
        hidden_dim=layout.hidden_dim,
        heads=num_heads,
        ffn_dim=layout.ffn_dim,
        encoder_layers=layout.encoder_layers,
        decoder_layers=len(layout.self_attention),
        self_attention=kinds[first, others],
        input_projection=layout.input_projection,
        pre_norm=layout.pre_norm,
    )


def _head_tensors(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Official key → names in our model, with tensors, for all but the backbone."""
    return {key: _head_tensor(key, tensor) for key, tensor in state.items() if not key.startswith("backbone.0.")}


def _head_tensor(key: str, tensor: Tensor) -> dict[str, Tensor]:
    name = key
    for theirs, ours in _RENAMED:
        name = name.replace(theirs, ours)
    if ".in_proj_" in name:  # query, key and value in one matrix
        layer, kind = name.split(".in_proj_")
        return dict(zip((f"{layer}.{part}.{kind}" for part in ("query", "key", "value")), tensor.chunk(3), strict=True))
    return {name: tensor.squeeze(0) if key in ("fc.W", "fc.b") else tensor}
