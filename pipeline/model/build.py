"""Builds a network from the config: a fresh one, one that starts from other weights, or a trained one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from pipeline.config import ImagesConfig, ModelConfig
from pipeline.errors import ConfigError, RunError, listing
from pipeline.events import Listener, Note
from pipeline.machine import regular
from pipeline.model.backbone import Backbone, build_backbone
from pipeline.model.backbone_weights import load_backbone_weights
from pipeline.model.loading import LoadReport, load_for_labels
from pipeline.model.normalize import PixelNormalizer, read_statistics, statistics_for
from pipeline.model.official.checkpoint import load_official_checkpoint, read_official_checkpoint
from pipeline.model.query2label import PooledClassifier, Query2Label
from pipeline.model.timm_registry import current_name
from pipeline.model.weights import load_tensors


class TrainedModel(NamedTuple):
    """A trained model with what its use needs: labels in the order of its outputs, and the images section."""

    model: nn.Module
    normalizer: nn.Module
    labels: tuple[str, ...]
    images: ImagesConfig


def build_model(
    config: ModelConfig,
    images: ImagesConfig,
    *,
    num_labels: int,
    pretrained: bool,
    initial_queries: Tensor | None = None,
) -> nn.Module:
    """The network of the model section `config`, for `num_labels` labels and images of `images`' size and channels.

    Args:
        config: the model section.
        images: the images section.
        num_labels: K.
        pretrained: whether to load the backbone's published weights; False where others follow.
        initial_queries: starting value of the label queries (queries, hidden_dim); None for noise.

    Raises:
        ConfigError: the backbone is unknown, has no stage of that stride, or its weights cannot be loaded.
    """
    backbone = build_backbone(
        config.backbone,
        pretrained=pretrained,
        feature_stride=config.feature_stride,
        channels=images.channels,
        size=images.height_width,
    )
    backbone.freeze(stem="stem" in config.freeze, batch_norm="batch_norm" in config.freeze)
    if config.head == "gap":
        return PooledClassifier(backbone, num_labels=num_labels)
    return Query2Label(
        backbone,
        num_labels=num_labels,
        hidden_dim=config.hidden_dim,
        heads=config.heads,
        ffn_dim=config.ffn_dim,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        self_attention=config.self_attention,
        dropout=config.dropout,
        input_projection=config.input_projection,
        pre_norm=config.pre_norm,
        query_groups=config.query_groups,
        pooled_residual=config.pooled_residual,
        initial_queries=initial_queries,
    )


def decoder_numbers(config: ModelConfig, num_labels: int) -> int:
    """The numbers in the weights of the encoder, the decoder and their queries, biases and norms aside."""
    if config.head == "gap":
        return 0
    width, layers = config.hidden_dim, config.encoder_layers + config.decoder_layers
    return (
        layers * (4 * width**2 + 2 * width * config.ffn_dim)
        + (num_labels + (config.query_groups or num_labels)) * width
    )


def require_memory(config: ModelConfig, num_labels: int, views: Sequence[tuple[int, int, int]]) -> None:
    """Raise ConfigError where the decoder's weights, with an image (H, W, C) of `views`, are more than the free memory.

    An image takes 4 bytes per sample, and its first feature map at least 64 per pixel.
    """
    image = max(height * width * (4 * channels + 64) for height, width, channels in views)
    needed, free = 4 * decoder_numbers(config, num_labels) + image, psutil.virtual_memory().available
    if needed > free:
        raise ConfigError(
            "the model does not fit into memory",
            expected=f"at most {free / 2**30:.1f} GiB, which are free",
            got=f"{needed / 2**30:.1f} GiB for the weights of model.hidden_dim={config.hidden_dim}, "
            f"model.ffn_dim={config.ffn_dim}, {config.encoder_layers} + {config.decoder_layers} layers, and an image",
            remedy="lower images.size, the sizes in predict.tta, model.hidden_dim, model.ffn_dim or the layers",
        )


def start_model(config: ModelConfig, images: ImagesConfig, *, labels: Sequence[str], listen: Listener) -> nn.Module:
    """A network for `labels` with the starting values that the config names; notes what it took from the files.

    `model.backbone_weights` replaces the published weights: nothing is downloaded. `model.query_init` sets the label
    queries. Tensors from `model.weights` then replace both.

    Raises:
        ConfigError, RunError: the network cannot be built, or a file it starts from is missing or does not fit.
    """
    queries = None
    start: tuple[Mapping[str, Any], Mapping[str, Any] | None] | None = None
    if config.weights is not None:  # first: the remedy for a wrong file avoids the download
        path = Path(config.weights)
        if not path.is_file():
            raise ConfigError(
                f"model.weights: there is no file {path}",
                got=f"working folder {Path.cwd()}",
                remedy="correct model.weights; a relative path starts from the working folder",
            )
        start = load_tensors(path) if path.suffix == ".safetensors" else (read_official_checkpoint(path), None)
    if config.query_init is not None:
        if config.head != "q2l":
            raise ConfigError(
                f"model.query_init is set, but model.head={config.head} has no label queries",
                remedy="set model.head=q2l, or leave model.query_init out",
            )
        queries = _load_queries(Path(config.query_init))
    download = config.pretrained and config.backbone_weights is None
    model = build_model(config, images, num_labels=len(labels), pretrained=download, initial_queries=queries)
    name = current_name(config.backbone)
    if name != config.backbone:
        listen(Note(f"model.backbone={config.backbone} is an old name in timm; the network is called {name} today"))
    if config.backbone_weights is not None:
        load_backbone_weights(backbone_of(model), config.backbone_weights, listen=listen)
    if start is not None:
        report = _start_from(model, start, labels)
        for line in str(report).splitlines():
            listen(Note(f"model.weights={config.weights}: {line}"))
    return model


def load_model(path: Path, *, device: torch.device) -> TrainedModel:
    """The model saved at `path`, in evaluation mode on `device`; reads no other file.

    Raises:
        RunError: the file is missing, broken, or does not hold the model its facts describe.
    """
    tensors, facts = load_tensors(path)
    try:
        config = ModelConfig.model_validate(facts["model"])
        images = ImagesConfig.model_validate(facts["images"])
        labels = tuple(str(name) for name in facts["labels"])
        mean, std = read_statistics(facts.get("pixels", {}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # a ValidationError is a ValueError
        raise RunError(f"{path}: its facts describe no model: {error}", remedy="train again with --fresh") from None
    numbers = sum(tensor.numel() for tensor in tensors.values())
    if decoder_numbers(config, len(labels)) > numbers:  # before it is built: a file from anywhere may ask for any size
        raise RunError(
            f"{path}: its facts describe a larger model than it holds",
            got=f"{numbers:,} numbers",
            remedy="restore the file, or train again with --fresh",
        )
    model = build_model(config, images, num_labels=len(labels), pretrained=False)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(
            f"{path}: the tensors do not fit the model: {listing(str(error).splitlines(), 3)}",
            remedy="use the version of the pipeline that trained it, or train again with --fresh",
        ) from None
    backbone = backbone_of(model)
    backbone.mean, backbone.std = mean or backbone.mean, std or backbone.std
    normalizer = build_normalizer(images, model).to(device)
    model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return TrainedModel(model, normalizer, labels, images)


def backbone_of(model: nn.Module) -> Backbone:
    """The backbone of a network from `build_model`."""
    backbone = model.backbone
    assert isinstance(backbone, Backbone)  # both heads have one
    return backbone


def build_normalizer(images: ImagesConfig, model: nn.Module) -> PixelNormalizer:
    """Normalisation by the config's mean and std; where they are null, by those of the backbone's pretraining."""
    backbone = backbone_of(model)
    mean = images.mean if images.mean is not None else statistics_for(backbone.mean, images.channels)
    std = images.std if images.std is not None else statistics_for(backbone.std, images.channels)
    return PixelNormalizer(mean, std)


def _load_queries(path: Path) -> Tensor:
    """The array at `path` (.npy), one embedding per label, as float32."""
    try:
        values = np.load(regular(path), allow_pickle=False)
        embeddings = torch.from_numpy(np.asarray(values, dtype=np.float32))
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise ConfigError(
            f"model.query_init: {path} is not readable as an array",
            got=f"{type(error).__name__}: {error}",
            remedy="write it with numpy.save(path, array), one row per label in the labels' order",
        ) from error
    if embeddings.ndim != 2 or not embeddings.isfinite().all():
        raise ConfigError(
            f"model.query_init: {path} holds no label embeddings",
            expected="finite numbers of shape (labels, model.hidden_dim)",
            got=f"shape {tuple(embeddings.shape)}",
            remedy="write one row per label, in the labels' order",
        )
    return embeddings


def _start_from(
    model: nn.Module, start: tuple[Mapping[str, Any], Mapping[str, Any] | None], labels: Sequence[str]
) -> LoadReport:
    """Load weights of this pipeline with their facts, or the content of an official checkpoint and None, into `model`.

    An official checkpoint does not name its labels, so queries and classifier rows stay fresh.
    """
    content, facts = start
    if facts is not None:
        return load_for_labels(model, content, labels=labels, source_labels=facts.get("labels"))
    official = load_official_checkpoint(content)
    return load_for_labels(model, official.state_dict(), labels=labels, source_labels=official.label_names)
