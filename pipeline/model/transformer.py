"""Query2Label's encoder and decoder, batch first, on PyTorch's fused scaled-dot-product attention.

Shapes in comments: B images, P = h x w positions of the feature map, Q label queries, D width, N heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable

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

        Returns the result (B, Q, D) and, with `need_weights`, the weights (B, N, Q, P) before dropout. A query
        of batch size 1 is projected once and shared by all images.
        """
        q = self._split(self.query(query)).expand(key.shape[0], -1, -1, -1)
        k, v = self._split(self.key(key)), self._split(self.value(value))
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:  # the fused kernels never hold the weights
            weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1)
            attended = F.dropout(weights, dropout, training=self.training).to(v.dtype) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.out(attended.transpose(1, 2).flatten(2)), weights

    def _split(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        return x.view(batch, length, self.heads, dim // self.heads).transpose(1, 2)  # (B, N, P, D / N)


class FeedForward(nn.Sequential):
    """Linear, ReLU, dropout, linear: the last part of every layer."""

    def __init__(self, dim: int, *, hidden: int, dropout: float) -> None:
        widen, narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        nn.init.xavier_uniform_(widen.weight)
        nn.init.xavier_uniform_(narrow.weight)
        super().__init__(widen, nn.ReLU(inplace=True), nn.Dropout(dropout), narrow)


class _Layer(nn.Module):
    """The residual branch of both kinds of layer: x + dropout(f(x)), with the norm after the sum or before f."""

    def __init__(self, dropout: float, *, pre_norm: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.dropout = nn.Dropout(dropout)

    def _read(self, x: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        return norm(x) if self.pre_norm else x

    def _add(self, x: Tensor, update: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        total: Tensor = x + self.dropout(update)
        return total if self.pre_norm else norm(total)


class EncoderLayer(_Layer):
    """Self-attention among the positions of a feature map, then the feed-forward part."""

    def __init__(self, dim: int, *, heads: int, ffn_dim: int, dropout: float, pre_norm: bool) -> None:
        super().__init__(dropout, pre_norm=pre_norm)
        self.self_attention = Attention(dim, heads=heads, dropout=dropout)
        self.feed_forward = FeedForward(dim, hidden=ffn_dim, dropout=dropout)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, memory: Tensor, position: Tensor) -> Tensor:
        """Memory (B, P, D) and position (1, P, D) to memory; values carry no position."""
        value = self._read(memory, self.norm1)
        placed = value + position
        attended, _ = self.self_attention(placed, placed, value)
        memory = self._add(memory, attended, self.norm1)
        return self._add(memory, self.feed_forward(self._read(memory, self.norm2)), self.norm2)


class DecoderLayer(_Layer):
    """Label queries attend to each other (where `self_attention`), then to the image."""

    def __init__(
        self, dim: int, *, heads: int, ffn_dim: int, dropout: float, pre_norm: bool, self_attention: bool
    ) -> None:
        super().__init__(dropout, pre_norm=pre_norm)
        self.self_attention = Attention(dim, heads=heads, dropout=dropout) if self_attention else None
        self.norm1 = nn.LayerNorm(dim) if self_attention else None
        self.cross_attention = Attention(dim, heads=heads, dropout=dropout)
        self.feed_forward = FeedForward(dim, hidden=ffn_dim, dropout=dropout)
        self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(
        self, state: Tensor, queries: Tensor, keys: Tensor, values: Tensor, *, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Update the state of the label queries.

        Args:
            state: (B, Q, D), or (1, Q, D) while it does not yet depend on the image.
            queries: the label embeddings (1, Q, D), added to the state in queries and keys of attention.
            keys: the encoded image with its positions (B, P, D).
            values: the encoded image (B, P, D).
            need_weights: return the cross-attention weights (B, N, Q, P) too.
        """
        if self.self_attention is not None and self.norm1 is not None:
            value = self._read(state, self.norm1)
            attended, _ = self.self_attention(value + queries, value + queries, value)
            state = self._add(state, attended, self.norm1)
        query = self._read(state, self.norm2) + queries
        attended, weights = self.cross_attention(query, keys, values, need_weights=need_weights)
        state = self._add(state, attended, self.norm2)
        return self._add(state, self.feed_forward(self._read(state, self.norm3)), self.norm3), weights


class Encoder(nn.Module):
    """Encoder layers, followed by a norm with pre-norm, as in DETR."""

    def __init__(self, dim: int, *, layers: int, heads: int, ffn_dim: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(dim, heads=heads, ffn_dim=ffn_dim, dropout=dropout, pre_norm=pre_norm) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim) if pre_norm and layers else None

    def forward(self, memory: Tensor, position: Tensor) -> Tensor:
        """Memory (B, P, D) and position (1, P, D) to memory (B, P, D)."""
        for layer in self.layers:
            memory = layer(memory, position)
        if self.norm is not None:
            memory = self.norm(memory)
        return memory


class Decoder(nn.Module):
    """Decoder layers, from a state of zeros to one normalised state per query.

    Args:
        self_attention: one flag per layer.
    """

    def __init__(
        self,
        dim: int,
        *,
        self_attention: list[bool],
        heads: int,
        ffn_dim: int,
        dropout: float,
        pre_norm: bool,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(dim, heads=heads, ffn_dim=ffn_dim, dropout=dropout, pre_norm=pre_norm, self_attention=attends)
            for attends in self_attention
        )
        self.norm = nn.LayerNorm(dim)
        # Without self-attention the queries of the first layer are the same for every image, so they are projected
        # once. With it, dropout has to differ between images.
        self.starts_shared = not self_attention[0]

    def forward(
        self, queries: Tensor, memory: Tensor, position: Tensor, *, need_weights: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Queries (Q, D), memory (B, P, D), position (1, P, D) to states (B, Q, D) and weights per layer.

        The list is empty unless `need_weights`; each entry is (B, N, Q, P).
        """
        queries = queries.unsqueeze(0)
        keys = memory + position
        state = torch.zeros_like(queries).expand(1 if self.starts_shared else memory.shape[0], -1, -1)
        maps: list[Tensor] = []
        for layer in self.layers:
            state, weights = layer(state, queries, keys, memory, need_weights=need_weights)
            if weights is not None:
                maps.append(weights)
        return self.norm(state), maps
