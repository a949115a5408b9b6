"""Converts the samples of a file to uint8 channels: window, alpha, grey and colour. Arrays only, no files."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.images.geometry import Colour, Pixels, Window

Samples = NDArray[Any]
_GREY_ALPHA, _RGB, _RGBA = 2, 3, 4


def to_uint8(samples: Samples, window: Window | None) -> Pixels:
    """Samples of any shape to uint8.

    Args:
        samples: of any number type.
        window: (low, high): values up to low become 0, from high on 255, linear in between. NaN, which marks
            missing values, becomes 0. None: 8 bits stay, 16 bits are scaled over their full range, round(v / 257).

    Raises:
        ValueError: there is no window, and the samples are neither 8 nor 16 bit integers.
    """
    if window is not None:
        return _windowed(samples, window)
    if samples.dtype == np.uint8:
        return samples
    if samples.dtype == np.uint16:
        return np.asarray((samples.astype(np.uint32) + 128) // 257, np.uint8)
    raise ValueError(f"expected samples of 8 or 16 bits but got {samples.dtype}")


def to_channels(image: Pixels, channels: int, alpha: Colour | None) -> Pixels:
    """Bands (H, W, n) to (H, W, channels), C-contiguous.

    Where n = channels, nothing changes. Otherwise 1 is grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha: grey is
    replicated, RGB becomes grey by luma (ITU-R BT.601), a missing alpha is 255. An unwanted alpha is dropped; where
    `alpha` is a colour, the image is blended over it.

    Raises:
        ValueError: there is no such rule for n and `channels`.
    """
    bands = image.shape[2]
    if bands == channels:
        return np.ascontiguousarray(image)
    if bands > _RGBA or channels not in (1, _RGB, _RGBA):
        raise ValueError(f"expected {channels} channels but got {bands}")
    opaque = None
    if bands in (_GREY_ALPHA, _RGBA):
        image, opaque = image[:, :, :-1], image[:, :, -1:]
    if opaque is not None and alpha is not None and channels != _RGBA:
        image = _blended(_coloured(image), opaque, alpha)
    if channels == 1:
        grey = image if image.shape[2] == 1 else cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
        return np.ascontiguousarray(grey, np.uint8).reshape(*image.shape[:2], 1)
    if channels == _RGB:
        return np.ascontiguousarray(_coloured(image))
    full = np.full((*image.shape[:2], 1), 255, np.uint8) if opaque is None else opaque
    return np.concatenate([_coloured(image), full], axis=2)


def turn_upright(image: Samples, orientation: int) -> Samples:
    """Undo the EXIF `orientation` (1 to 8; any other value counts as 1) of an image (H, W, n)."""
    flipped, turns = {
        2: (True, 0),
        3: (False, 2),
        4: (True, 2),
        5: (True, 1),
        6: (False, 3),
        7: (True, 3),
        8: (False, 1),
    }.get(orientation, (False, 0))
    return np.rot90(image[:, ::-1] if flipped else image, turns)


def _windowed(samples: Samples, window: Window) -> Pixels:
    low, high = window
    if samples.dtype in (np.uint8, np.uint16):  # one look-up per sample is faster than arithmetic
        return np.take(_windowed(np.arange(np.iinfo(samples.dtype).max + 1, dtype=np.float64), window), samples)
    scaled = (samples.astype(np.float64) - low) * (255 / (high - low))
    clipped = np.clip(np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0), 0, 255)
    return np.asarray(np.round(clipped), np.uint8)


def _coloured(image: Pixels) -> Pixels:
    return np.repeat(image, _RGB, axis=2) if image.shape[2] == 1 else image


def _blended(image: Pixels, opaque: Pixels, colour: Colour) -> Pixels:
    share = opaque.astype(np.uint32)
    mixed = image * share + np.array(colour, np.uint32) * (255 - share)
    return np.asarray((mixed + 127) // 255, np.uint8)
