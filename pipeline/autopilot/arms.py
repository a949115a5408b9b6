"""The arms of an autopilot: configs that may win, as overrides of the user's one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HUB_CACHE

from pipeline.config import Config
from pipeline.config.recipes import RECIPES

_LARGER = 1.4  # times the image size
_LONGER = 5  # times the epochs, at most, from scratch: there more epochs are the surest gain
_OTHER_BACKBONES = 2  # out of the model hub's cache


def arms_of(config: Config) -> dict[str, list[str]]:
    """The overrides of each arm by its name, the most important one first.

    They are those of `autopilot.arms`, or else: the config itself (`own`); with trained weights its frozen backbone;
    larger images; other backbones in the cache of the model hub; average pooling; another loss. From scratch all of
    these may train for more epochs than the config has.
    """
    given, trained, epochs = [{**arm} for arm in config.autopilot.arms], _is_trained(config), config.train.epochs
    stride = config.model.feature_stride
    arms = {str(arm.pop("name")): arm for arm in given} or {
        "own": {},
        **({"frozen": _FROZEN} if trained and not config.train.frozen_backbone else {}),
        "larger": {"images.size": [stride * round(_LARGER * side / stride) for side in config.images.height_width]},
        **_other_backbones(config),
        **({"gap": {"model.head": "gap"}} if config.model.head != "gap" else {}),
        **_other_loss(config),
    }
    if not (given or trained or epochs == "auto"):
        arms = {name: {"train.epochs": _LONGER * epochs, **keys} for name, keys in arms.items()}
    return {name: [f"{key}={json.dumps(value)}" for key, value in keys.items()] for name, keys in arms.items()}


_FROZEN: dict[str, Any] = {
    "augment.mix": {},
    **{f"{part}.{key}": value for part, keys in RECIPES["frozen_head"].items() for key, value in keys.items()},
}


def _is_trained(config: Config) -> bool:
    return bool(config.model.pretrained or config.model.backbone_weights or config.model.weights)


def _other_loss(config: Config) -> dict[str, dict[str, Any]]:
    if config.loss.name == "asl" and config.loss.gamma_neg != 0:
        return {"bce": {"loss.name": "bce"}}
    return {"asl": {"loss.name": "asl", "loss.gamma_neg": 2.0}}


def _other_backbones(config: Config) -> dict[str, dict[str, Any]]:
    model = config.model
    if not model.pretrained or model.backbone_weights or model.weights:
        return {}
    found = sorted(path.name.removeprefix("models--timm--") for path in Path(HF_HUB_CACHE).glob("models--timm--*"))
    others = [name for name in found if name.partition(".")[0] != model.backbone.partition(".")[0]]
    return {f"backbone{place}": {"model.backbone": name} for place, name in enumerate(others[:_OTHER_BACKBONES], 1)}
