"""The sine encoding of positions, computed for the size of each feature map."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_TEMPERATURE = 10_000.0
_EPS = 1e-6


class SinePosition(nn.Module):
    """Position encodings, computed once per map size, device and type; checkpoints hold none."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple[int, int, int, torch.device, torch.dtype], Tensor] = {}

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D, h, w) to their encoding (1, h * w, D), of the same type and on the same device."""
        channels, height, width = features.shape[1:]
        key = (height, width, channels, features.device, features.dtype)
        if key not in self._known:
            # A tensor made in inference mode could not be used in a training step later.
            with torch.inference_mode(False), torch.no_grad():
                encoding = sine_position_encoding(height, width, channels, device=features.device)
                self._known[key] = encoding.flatten(2).transpose(1, 2).contiguous().to(features.dtype)
        return self._known[key]


def sine_position_encoding(height: int, width: int, channels: int, *, device: torch.device | None = None) -> Tensor:
    """The encoding of a height x width map, float32 of shape (1, channels, height, width).

    The first half of the channels encodes the row, the second half the column. Channels 2i and 2i + 1 of a half are
    the sine and the cosine of the position (1 to n, scaled to end at 2 pi) over temperature ** (2i / (channels / 2)),
    as in `PositionEmbeddingSine(normalize=True)` of DETR (Carion et al. 2020) and of the Query2Label code.

    Raises:
        ValueError: `channels` is not a multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"expected channels divisible by 4, got {channels=}")
    rows = _encode(height, channels // 2, device)[:, :, None].expand(-1, -1, width)
    columns = _encode(width, channels // 2, device)[:, None, :].expand(-1, height, -1)
    return torch.cat([rows, columns]).unsqueeze(0)


def _encode(length: int, channels: int, device: torch.device | None) -> Tensor:
    """One axis, shape (channels, length)."""
    positions = torch.arange(1, length + 1, dtype=torch.float32, device=device)
    positions = positions / (length + _EPS) * (2 * math.pi)
    exponents = torch.arange(0, channels, 2, dtype=torch.float32, device=device) / channels
    angles = positions / (_TEMPERATURE**exponents).unsqueeze(1)
    return torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)
