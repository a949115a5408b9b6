"""Normalises uint8 images on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class PixelNormalizer(nn.Module):
    """uint8 (B, C, H, W) to float32 (pixel / 255 - mean) / std, channels-last, on the device of the input.

    Args:
        mean: C numbers on the scale 0 to 1.
        std: C positive numbers on the same scale.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"expected as many positive stds as means, got {mean=} and {std=}")
        spread = torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1)
        centre = torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1)
        self.register_buffer("scale", 1 / (255 * spread))
        self.register_buffer("shift", -centre / spread)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (B, C, H, W) uint8 images; ValueError for another type."""
        if images.dtype != torch.uint8:
            raise ValueError(f"expected uint8 images, got {images.dtype}")
        plain = images.to(torch.float32, memory_format=torch.channels_last)
        return torch.addcmul(self.shift, plain, self.scale)


class MapsToFloat(nn.Module):
    """Takes the place of `PixelNormalizer` before a head on stored maps: float16 (B, D, h, w) to float32."""

    def forward(self, maps: Tensor) -> Tensor:
        """Convert the maps."""
        return maps.float()


def read_statistics(values: Mapping[str, Any]) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and std of a file's facts, None where they are not given.

    Raises:
        TypeError, ValueError: they are not as many positive stds as means.
    """
    mean, std = (None if values.get(key) is None else tuple(map(float, values[key])) for key in ("mean", "std"))
    if mean is None and std is None:
        return None, None
    if not mean or not std or len(mean) != len(std) or not math.isfinite(sum(mean) + sum(std)) or min(std) <= 0:
        raise ValueError(f"expected as many positive stds as means, got {mean=} and {std=}")
    return mean, std


def statistics_for(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """The statistics `values` for `channels` channels: a single or a further channel gets their average."""
    if len(values) == channels:
        return tuple(values)
    average = sum(values) / len(values)
    return (average,) if channels == 1 else (*values[:channels], *[average] * (channels - len(values)))
