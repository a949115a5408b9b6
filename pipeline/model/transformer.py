"""Query2Label's encoder and decoder layers, batch first, on fused scaled-dot-product attention.

Shapes in comments: B images, P = H x W positions of the feature map, K label queries, D width, N heads.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) with dropout on its weights."""

    def __init__(self, dim: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"expected a width divisible by the heads, got {dim=} and {heads=}")
        self.heads, self.dropout = heads, dropout
        self.query, self.key = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.value, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        for layer in (self.query, self.key, self.value):
            # Xavier over the three matrices as one (3D, D), as torch.nn.MultiheadAttention and DETR do.
            nn.init.xavier_uniform_(layer.weight, gain=1 / math.sqrt(2))
            nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from query (B or 1, Q, D) to key and value (B, P, D).

        Returns the result (B, Q, D) and, where asked for, the weights (B, N, Q, P) before dropout; a query
        of batch size 1 is projected once and shared by all images.
        """
        batch = len(key)
        q = self._split(self.query(query)).expand(batch, -1, -1, -1)
        k, v = self._split(self.key(key)), self._split(self.value(value))
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1)
            attended = F.dropout(weights, dropout, training=self.training) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.out(attended.transpose(1, 2).flatten(2)), weights

    def _split(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        return x.view(batch, length, self.heads, dim // self.heads).transpose(1, 2)  # (B, N, P, D / N)


class FeedForward(nn.Sequential):
    """Linear, ReLU, dropout, linear: the second half of every layer."""

    def __init__(self, dim: int, *, hidden: int, dropout: float) -> None:
        widen, narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        nn.init.xavier_uniform_(widen.weight)
        nn.init.xavier_uniform_(narrow.weight)
        super().__init__(widen, nn.ReLU(inplace=True), nn.Dropout(dropout), narrow)


class EncoderLayer(nn.Module):
    """Self-attention among the positions of a feature map, then the feed-forward half; post-norm."""

    def __init__(self, dim: int, *, heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(dim, heads=heads, dropout=dropout)
        self.feed_forward = FeedForward(dim, hidden=ffn_dim, dropout=dropout)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, memory: Tensor, position: Tensor) -> Tensor:
        """Memory (B, P, D) and position (1, P, D) to memory (B, P, D)."""
        placed = memory + position
        attended, _ = self.self_attention(placed, placed, memory)
        memory = self.norm1(memory + self.dropout(attended))
        result: Tensor = self.norm2(memory + self.dropout(self.feed_forward(memory)))
        return result


class DecoderLayer(nn.Module):
    """Label queries attend to each other (optional), then to the image; post-norm."""

    def __init__(self, dim: int, *, heads: int, ffn_dim: int, dropout: float, self_attention: bool) -> None:
        super().__init__()
        self.self_attention = Attention(dim, heads=heads, dropout=dropout) if self_attention else None
        self.norm1 = nn.LayerNorm(dim) if self_attention else None
        self.cross_attention = Attention(dim, heads=heads, dropout=dropout)
        self.feed_forward = FeedForward(dim, hidden=ffn_dim, dropout=dropout)
        self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, state: Tensor, queries: Tensor, memory: Tensor, position: Tensor, *, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """One step of the label states.

        Args:
            state: (B, K, D), or (1, K, D) while it does not yet depend on the image.
            queries: the label embeddings (1, K, D), added to the state wherever it asks.
            memory: the encoded image (B, P, D).
            position: its position encoding (1, P, D), added to keys and never to values.
            need_weights: return the cross-attention weights (B, N, K, P) too.
        """
        if self.self_attention is not None and self.norm1 is not None:
            asking = state + queries
            attended, _ = self.self_attention(asking, asking, state)
            state = self.norm1(state + self.dropout(attended))
        seen, weights = self.cross_attention(
            state + queries, memory + position, memory, need_weights=need_weights
        )
        state = self.norm2(state + self.dropout(seen))
        return self.norm3(state + self.dropout(self.feed_forward(state))), weights


class Decoder(nn.Module):
    """Decoder layers from a state of zeros to one normalised state per label."""

    def __init__(self, layers: list[DecoderLayer], dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, queries: Tensor, memory: Tensor, position: Tensor, *, need_weights: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Queries (K, D), memory (B, P, D), position (1, P, D) to states (B, K, D) and each layer's weights.

        Without self-attention the first layer asks the same of every image: its state stays (1, K, D), so
        the query is projected once. With it, dropout must differ between images.
        """
        queries = queries.unsqueeze(0)
        first = self.layers[0]
        shared = isinstance(first, DecoderLayer) and first.self_attention is None
        state = torch.zeros_like(queries).expand(1 if shared else len(memory), -1, -1)
        maps: list[Tensor] = []
        for layer in self.layers:
            state, weights = layer(state, queries, memory, position, need_weights=need_weights)
            if weights is not None:
                maps.append(weights)
        return self.norm(state), maps
