"""The network a training starts with: built, then filled from what the config names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from pipeline.config import ImagesConfig, ModelConfig
from pipeline.errors import ConfigError
from pipeline.model.build import build_model
from pipeline.model.loading import load_query_init
from pipeline.model.weights import start_from


def start_model(config: ModelConfig, images: ImagesConfig, *, labels: Sequence[str]) -> tuple[nn.Module, list[str]]:
    """A fresh network for `labels`, and sentences on what its starting values came from.

    `model.query_init` gives the label queries their start; `model.weights` comes after it, so that a query
    kept from there wins. Trained weights need none of this: `load_model` reads no other file.

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
    model = build_model(config, images, num_labels=len(labels), pretrained=config.pretrained, initial_queries=queries)
    if config.weights is None:
        return model, []
    report = start_from(model, Path(config.weights), labels=labels)
    return model, [f"model.weights={config.weights}: {line}" for line in str(report).splitlines()]
