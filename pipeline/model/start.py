"""The network a training starts with: built, then filled from what the config names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from pipeline.config import ImagesConfig, ModelConfig
from pipeline.errors import ConfigError
from pipeline.model.backbone_weights import load_backbone_weights
from pipeline.model.build import backbone_of, build_model
from pipeline.model.loading import load_query_init
from pipeline.model.timm_registry import current_name
from pipeline.model.weights import start_from


def start_model(config: ModelConfig, images: ImagesConfig, *, labels: Sequence[str]) -> tuple[nn.Module, list[str]]:
    """A fresh network for `labels`, and sentences on what its starting values came from.

    `model.backbone_weights` takes the place of published weights, and nothing is downloaded. `model.query_init`
    gives the label queries their start; `model.weights` comes after both and wins. Trained weights need none of
    this: `load_model` reads no other file.

    Raises:
        ConfigError, RunError: the network cannot be built, or a file it starts from is missing or does not fit.
    """
    queries = None
    if config.query_init is not None:
        if config.head != "q2l":
            raise ConfigError(
                f"model.query_init is set, but model.head={config.head} has no label queries",
                remedy="set model.head=q2l, or leave model.query_init out",
            )
        queries = load_query_init(Path(config.query_init))
    published = config.pretrained and config.backbone_weights is None
    model = build_model(config, images, num_labels=len(labels), pretrained=published, initial_queries=queries)
    name, notes = current_name(config.backbone), []
    if name != config.backbone:
        notes.append(f"model.backbone={config.backbone} is an old name in timm; its network is {name} today")
    if config.backbone_weights is not None:
        notes += load_backbone_weights(backbone_of(model), config.backbone_weights)
    if config.weights is not None:
        report = start_from(model, Path(config.weights), labels=labels)
        notes += [f"model.weights={config.weights}: {line}" for line in str(report).splitlines()]
    return model, notes
