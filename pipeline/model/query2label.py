"""Query2Label (Liu et al. 2021): one query per label looks for its evidence in the feature map."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.model.backbone import Backbone
from pipeline.model.position import sine_position_encoding
from pipeline.model.transformer import Decoder, DecoderLayer, EncoderLayer

SelfAttention = Literal["none", "all"]


class Query2Label(nn.Module):
    """Backbone, 1x1 projection, transformer encoder, label queries in a decoder, one linear unit per label.

    Args:
        backbone: images (B, C, H, W) to a feature map (B, `backbone.channels`, h, w).
        num_labels: K.
        hidden_dim: D, the width of the transformer; divisible by `heads` and by 4.
        heads: of every attention.
        ffn_dim: hidden width of the feed-forward halves.
        encoder_layers: over the feature map; 0 for none.
        decoder_layers: at least 1.
        self_attention: between the label queries, in no decoder layer (as the paper's models) or in all.
        dropout: probability, in attention weights, feed-forward halves and residual branches.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_labels: int,
        hidden_dim: int = 512,
        heads: int = 4,
        ffn_dim: int = 2048,
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        self_attention: SelfAttention = "none",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = nn.Conv2d(backbone.channels, hidden_dim, kernel_size=1)
        self.encoder = nn.ModuleList(
            EncoderLayer(hidden_dim, heads=heads, ffn_dim=ffn_dim, dropout=dropout)
            for _ in range(encoder_layers)
        )
        layers = [
            DecoderLayer(
                hidden_dim,
                heads=heads,
                ffn_dim=ffn_dim,
                dropout=dropout,
                self_attention=self_attention == "all",
            )
            for _ in range(decoder_layers)
        ]
        self.decoder = Decoder(layers, hidden_dim)
        self.query_embed = nn.Parameter(torch.randn(num_labels, hidden_dim))
        self.classifier = GroupWiseLinear(num_labels, hidden_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images, float (B, C, H, W), to logits (B, K)."""
        features = self.projection(self.backbone(images))  # (B, D, h, w)
        height, width = features.shape[-2:]
        position = sine_position_encoding(height, width, features.shape[1], device=features.device)
        memory = features.flatten(2).transpose(1, 2)  # (B, P, D)
        place = position.flatten(2).transpose(1, 2).to(memory.dtype)  # (1, P, D)
        for layer in self.encoder:
            memory = layer(memory, place)
        states, _ = self.decoder(self.query_embed, memory, place)
        logits: Tensor = self.classifier(states)
        return logits


class GroupWiseLinear(nn.Module):
    """A linear unit of its own for every label: states (B, K, D) to logits (B, K)."""

    def __init__(self, num_labels: int, dim: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(dim)
        self.weight = nn.Parameter(torch.empty(num_labels, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_labels).uniform_(-bound, bound))

    def forward(self, states: Tensor) -> Tensor:
        """States (B, K, D) to logits (B, K)."""
        return (states * self.weight).sum(dim=-1) + self.bias


class PooledClassifier(nn.Module):
    """Average pooling and one linear layer: the baseline that label queries have to beat."""

    def __init__(self, backbone: Backbone, *, num_labels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.channels, num_labels)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images, float (B, C, H, W), to logits (B, K)."""
        logits: Tensor = self.classifier(self.backbone(images).mean(dim=(2, 3)))
        return logits
