"""Query2Label (Liu et al. 2021): one query per label attends to the feature map."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.model.backbone import Backbone
from pipeline.model.loading import LoadReport
from pipeline.model.position import SinePosition
from pipeline.model.transformer import Decoder, Encoder

SelfAttention = Literal["none", "first", "others", "all"]

# Whether the label queries attend to each other in the first decoder layer, and in each further one. In the first
# all states are still zero, so there it adds a constant at most; the option exists because the official code has it.
SELF_ATTENTION: dict[SelfAttention, tuple[bool, bool]] = {
    "none": (False, False),
    "first": (True, False),
    "others": (False, True),
    "all": (True, True),
}


class Query2Label(nn.Module):
    """Backbone, 1x1 projection, transformer encoder, decoder of label queries, one linear unit per label.

    Args:
        backbone: images (B, C, H, W) to a feature map (B, `backbone.channels`, h, w).
        num_labels: K.
        hidden_dim: D, the width of the transformer; divisible by `heads` and by 4.
        heads: of every attention.
        ffn_dim: hidden width of the feed-forward networks.
        encoder_layers: over the feature map; 0 for none.
        decoder_layers: at least 1.
        self_attention: the decoder layers in which label queries attend to each other; the published models
            have `none`.
        dropout: probability, in attention weights, feed-forward networks and residual branches.
        input_projection: False passes the feature map on unchanged; `hidden_dim` must then be its width.
        pre_norm: normalise before attention and feed-forward instead of after the sum.
        query_groups: number of queries that decode the K labels, the cost grows linearly with it (Ridnik et al. 2023,
            ML-Decoder); None for a query per label.
        pooled_residual: add the logits of average pooling and one linear layer, as `PooledClassifier` gives them, to
            those of the queries.
        initial_queries: starting value of the queries, float (queries, D); None for normal noise.

    Attributes:
        load_report: how an official checkpoint was loaded into this model; None for any other model.
        label_names: of the K outputs of such a checkpoint, where they are known.

    Raises:
        ConfigError: the widths do not fit, or there are more groups than labels.
    """

    load_report: LoadReport | None = None
    label_names: tuple[str, ...] | None = None

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
        input_projection: bool = True,
        pre_norm: bool = False,
        query_groups: int | None = None,
        pooled_residual: bool = False,
        initial_queries: Tensor | None = None,
    ) -> None:
        super().__init__()
        queries = num_labels if query_groups is None else query_groups
        _check_widths(backbone, hidden_dim, input_projection)
        first, others = SELF_ATTENTION[self_attention]
        self.backbone = backbone
        self.projection: nn.Module = nn.Identity()
        if input_projection:
            self.projection = nn.Conv2d(backbone.channels, hidden_dim, kernel_size=1)
        self.position = SinePosition()
        self.encoder = Encoder(
            hidden_dim,
            layers=encoder_layers,
            heads=heads,
            ffn_dim=ffn_dim,
            dropout=dropout,
            pre_norm=pre_norm,
        )
        self.decoder = Decoder(
            hidden_dim,
            self_attention=[first] + [others] * (decoder_layers - 1),
            heads=heads,
            ffn_dim=ffn_dim,
            dropout=dropout,
            pre_norm=pre_norm,
        )
        self.query_embed = nn.Parameter(_initial_queries(initial_queries, queries, hidden_dim))
        self.classifier = GroupWiseLinear(num_labels, hidden_dim, groups=queries)
        self.pooled = nn.Linear(backbone.channels, num_labels) if pooled_residual else None

    def forward(self, images: Tensor, *, return_attention: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Normalised images, float (B, C, H, W), to logits (B, K).

        With `return_attention`, also the cross-attention weights: per decoder layer one tensor
        (B, heads, queries, h, w), whose sums over the map are 1. A query belongs to a label, or to a group of labels.
        """
        maps = self.backbone(images)
        features = self.projection(maps)  # (B, D, h, w)
        height, width = features.shape[-2:]
        position = self.position(features)  # (1, P, D)
        memory = self.encoder(features.flatten(2).transpose(1, 2), position)  # (B, P, D)
        states, weights = self.decoder(self.query_embed, memory, position, need_weights=return_attention)
        logits: Tensor = self.classifier(states)
        if self.pooled is not None:
            logits = logits + self.pooled(maps.mean(dim=(2, 3)))
        if return_attention:
            return logits, [layer.reshape(*layer.shape[:-1], height, width) for layer in weights]
        return logits


class GroupWiseLinear(nn.Module):
    """One linear unit per label, applied to the state of the label's group.

    Groups are runs of consecutive labels, and their sizes differ by one at most. With as many groups as labels this
    is the group-wise linear layer of Query2Label, with fewer that of ML-Decoder.
    """

    slots: Tensor

    def __init__(self, num_labels: int, dim: int, *, groups: int) -> None:
        super().__init__()
        if not 1 <= groups <= num_labels:
            raise ConfigError(
                "model.query_groups does not fit the number of labels",
                expected=f"1 to {num_labels}",
                got=str(groups),
                remedy="set model.query_groups to fewer groups, or to null for a query per label",
            )
        bound = 1 / math.sqrt(dim)
        self.weight = nn.Parameter(torch.empty(num_labels, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_labels).uniform_(-bound, bound))
        # Label k is unit `slots[k]` of a grid of groups x the largest group's size.
        self.grid = (groups, math.ceil(num_labels / groups))
        group = torch.arange(num_labels) * groups // num_labels
        slots = group * self.grid[1] + torch.arange(num_labels) - torch.searchsorted(group, group)
        self.register_buffer("slots", slots, persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        """States (B, groups, D) to logits (B, K)."""
        # OpenVINO 2026.4 gives wrong sums here for batches of a free size, so an export multiplies matrices below.
        if self.grid[1] == 1 and not torch.onnx.is_in_onnx_export():
            return (states * self.weight).sum(dim=-1) + self.bias
        dim = self.weight.shape[1]
        cells = self.grid[0] * self.grid[1]
        units = self.weight.new_zeros(cells, dim).index_copy(0, self.slots, self.weight)
        logits = torch.einsum("bgd,gfd->bgf", states, units.view(*self.grid, dim))
        return logits.flatten(1)[:, self.slots] + self.bias


class PooledClassifier(nn.Module):
    """Average pooling and one linear layer: the baseline of Query2Label."""

    def __init__(self, backbone: Backbone, *, num_labels: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.channels, num_labels)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images, float (B, C, H, W), to logits (B, K)."""
        logits: Tensor = self.classifier(self.backbone(images).mean(dim=(2, 3)))
        return logits


def _check_widths(backbone: Backbone, hidden_dim: int, input_projection: bool) -> None:
    if not input_projection and hidden_dim != backbone.channels:
        raise ConfigError(
            "without model.input_projection the transformer is as wide as the feature map",
            expected=f"model.hidden_dim={backbone.channels}",
            got=f"model.hidden_dim={hidden_dim}",
            remedy="set model.hidden_dim to that width, or model.input_projection=true",
        )


def _initial_queries(values: Tensor | None, queries: int, hidden_dim: int) -> Tensor:
    if values is None:
        return torch.randn(queries, hidden_dim)
    if values.shape != (queries, hidden_dim):
        raise ConfigError(
            "the array of model.query_init does not fit the queries",
            expected=f"shape ({queries}, {hidden_dim}): one row per query, model.hidden_dim wide",
            got=f"shape {tuple(values.shape)}",
            remedy="reduce or pad the embeddings to model.hidden_dim, one row per label in the labels' order",
        )
    return values.detach().clone().float()
