"""Recipes: settings that train well together, laid under the keys that a config sets itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

Recipe = Literal["auto", "finetune_cnn", "finetune_vit", "frozen_head", "from_scratch", "official"]

# Transformers over patches, by name; every other backbone counts as a CNN. Their layers want small rates.
_TRANSFORMER = re.compile(
    r"(^|_)(vit|deit3?|beitv?2?|eva02?|eva|cait|xcit|swin\w*|dinov[23]|samvit|hiera|flexivit)(_|$)"
)

_STEPS, _FEWEST_EPOCHS, _MOST_EPOCHS = 800, 6, 30
_SMALL_HEAD = {
    "pooled_residual": True,
    "hidden_dim": 256,
    "ffn_dim": 512,
    "encoder_layers": 0,
    "decoder_layers": 1,
}
RECIPES: Mapping[Recipe, Mapping[str, Any]] = {
    "finetune_cnn": {
        "model": _SMALL_HEAD,
        "loss": {"gamma_neg": 0.0},  # asl with gammas of 0 is binary cross-entropy; a search starts from there
        "train": {"lr": 1e-3, "batch_size": 32, "epochs": "auto"},
    },
    "finetune_vit": {
        "model": _SMALL_HEAD,
        "loss": {"gamma_neg": 0.0},  # asl with gammas of 0 is binary cross-entropy; a search starts from there
        "train": {"lr": 5e-4, "layer_decay": 0.75, "weight_decay": 0.05, "batch_size": 32, "epochs": "auto"},
    },
    "frozen_head": {
        "model": {**_SMALL_HEAD, "hidden_dim": 128, "ffn_dim": 256},
        "loss": {"gamma_neg": 0.0},
        "train": {"frozen_backbone": True, "lr": 1e-3, "batch_size": 32, "epochs": 8},
    },
    "from_scratch": {},
    "official": {},
}
"""Each recipe as a config diff; `docs/recipes.md` has the evidence. `official` is the recipe of the paper's code."""


def recipe_for(data: Mapping[str, Any]) -> Recipe:
    """The recipe of a config: the one that it names, or for `auto` by its backbone and `train.frozen_backbone`.

    Args:
        data: the config as it was written, before it is checked.
    """
    for recipe in RECIPES:
        if data.get("recipe") == recipe:
            return recipe
    train, model = data.get("train"), data.get("model")
    if isinstance(train, Mapping) and train.get("frozen_backbone") is True:
        return "frozen_head"
    model = model if isinstance(model, Mapping) else {}
    if not (model.get("pretrained", True) or model.get("backbone_weights") or model.get("weights")):
        return "from_scratch"
    return "finetune_vit" if _TRANSFORMER.search(str(model.get("backbone", "resnet50"))) else "finetune_cnn"


def with_recipe(data: Any) -> Any:
    """The config `data` with the keys of its recipe added where it sets none; no mapping comes back as it is."""
    if not isinstance(data, Mapping):
        return data
    return _over(RECIPES[recipe_for(data)], data)


def epochs_for(rows: int, batch_size: int) -> int:
    """The epochs that `train.epochs: auto` stands for: about _STEPS steps in total, within limits."""
    steps = max(1, rows // batch_size)
    return min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, round(_STEPS / steps)))


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), Mapping):
            merged[key] = _over(below[key], value)
    return merged
