"""From the config's model section to a network, and to the pixel statistics it expects."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.config import ImagesConfig, ModelConfig
from pipeline.model.backbone import Backbone, build_backbone
from pipeline.model.normalize import PixelNormalizer, statistics_for
from pipeline.model.query2label import PooledClassifier, Query2Label


def build_model(
    config: ModelConfig,
    images: ImagesConfig,
    *,
    num_labels: int,
    pretrained: bool,
    initial_queries: Tensor | None = None,
) -> nn.Module:
    """The network that `config` names, for `num_labels` labels and images of `images`' size and channels.

    Args:
        config: the model section.
        images: the images section.
        num_labels: K.
        pretrained: whether to load the backbone's published weights; False where others follow.
        initial_queries: starting value of the label queries (queries, hidden_dim); None for noise.

    Raises:
        ConfigError: the backbone is unknown, has no stage of that stride, or its weights cannot be had.
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
        initial_queries=initial_queries,
    )


def backbone_of(model: nn.Module) -> Backbone:
    """The backbone of a network from `build_model`."""
    backbone = model.backbone
    assert isinstance(backbone, Backbone)  # both heads have one
    return backbone


def build_normalizer(images: ImagesConfig, model: nn.Module) -> PixelNormalizer:
    """Normalisation by the config's mean and std, or where they are null by the backbone's own."""
    backbone = backbone_of(model)
    mean = images.mean if images.mean is not None else statistics_for(backbone.mean, images.channels)
    std = images.std if images.std is not None else statistics_for(backbone.std, images.channels)
    return PixelNormalizer(mean, std)
