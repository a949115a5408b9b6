"""The form of an image (size, fit, channels), and the resizing to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.config import ImagesConfig

Pixels: TypeAlias = NDArray[np.uint8]
Fit: TypeAlias = Literal["stretch", "crop", "pad"]
Size: TypeAlias = tuple[int, int]
Window: TypeAlias = tuple[float, float]
Colour: TypeAlias = tuple[int, int, int]

MAX_PIXELS = 200_000_000
_AT_ONCE = 4  # channels that OpenCV resizes
# Up to this factor linear interpolation is as near to a Lanczos filter on photographs as averaging (both 41 to 42 dB),
# and takes a third of the time; from a factor of 2 on it skips pixels.
_MILD = 1.5
_LONGER = 1.2  # so that the usual images of 1.25 times the crop shrink by 1.5 at most


class Reading(NamedTuple):
    """The part of an `ImageForm` that the decoder needs: it turns samples into channels."""

    channels: int
    window: Window | None = None
    alpha: Colour | None = None
    max_pixels: int = MAX_PIXELS
    without_end: bool = False


class ImageForm(NamedTuple):
    """The size and kind of pixels to which an image is brought.

    Attributes:
        size: (H, W).
        fit: how the image is resized to `size`.
        channels: C.
        window: the sample values that become 0 and 255; None: the full range of 8 or 16 bits.
        alpha: the RGB colour behind transparent pixels; None: transparency is ignored.
        max_pixels: images with more pixels are refused.
        without_end: whether a JPEG may lack its end marker, if all of its pixels are there.
        bound: `size` is an upper bound: an image keeps its size where it has no more pixels than `size`, and neither
            side is more than 1.2 times as long. For images that are cut and resized later; `fit` is stretch.
    """

    size: Size
    fit: Fit
    channels: int
    window: Window | None = None
    alpha: Colour | None = None
    max_pixels: int = MAX_PIXELS
    without_end: bool = False
    bound: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (*self.size, self.channels)

    @property
    def reading(self) -> Reading:
        """The part for the decoder; forms of equal readings share one decoded image."""
        return Reading(self.channels, self.window, self.alpha, self.max_pixels, self.without_end)


def to_form(image: Pixels, form: ImageForm) -> Pixels:
    """Bring a decoded image (h, w, C) to a form with C channels."""
    height, width = form.size
    small = image.shape[0] * image.shape[1] <= height * width and _shrinkage(image, form.size) <= _LONGER
    return image if form.bound and small else fit_image(image, size=form.size, fit=form.fit)


def fit_image(image: Pixels, *, size: Size, fit: Fit) -> Pixels:
    """Bring (h, w, C) to (H, W, C), where size is (H, W).

    "stretch" ignores the aspect ratio; "crop" covers the size and cuts out the centre; "pad" fits inside and pads
    evenly with zeros (an odd remainder goes below and to the right). Shrinking averages areas and enlarging is
    linear; where no axis shrinks by more than 1.5, both are linear.
    """
    if fit == "stretch":
        return _resize(image, size)
    if fit == "crop":
        return _cut_centre(_resize(image, _scaled(image, size, max)), size)
    if fit == "pad":
        return _pad_evenly(_resize(image, _scaled(image, size, min)), size)
    raise ValueError(f"expected fit to be one of stretch, crop, pad but got {fit!r}")


def _resize(image: Pixels, size: Size) -> Pixels:
    height, width, channels = image.shape
    if channels > _AT_ONCE:
        starts = range(0, channels, _AT_ONCE)
        parts = [_resize(np.ascontiguousarray(image[:, :, start : start + _AT_ONCE]), size) for start in starts]
        return np.concatenate(parts, axis=2)
    resized: NDArray[Any] = image
    if _shrinkage(image, size) > _MILD:
        # OpenCV's area mode does not average where the other axis is enlarged, so the axes that shrink come first.
        shrunk = (min(height, size[0]), min(width, size[1]))
        resized = cv2.resize(resized, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if resized.shape[:2] != size:
        resized = cv2.resize(resized, size[::-1], interpolation=cv2.INTER_LINEAR)
    return resized.reshape(*size, channels)  # cv2 drops the last axis of a grey image


def _shrinkage(image: Pixels, size: Size) -> float:
    """The larger of the factors by which the two axes shrink; below 1 where both grow."""
    return max(float(have) / want for have, want in zip(image.shape[:2], size, strict=True))


def _scaled(image: Pixels, size: Size, choose: Callable[[float, float], float]) -> Size:
    """The size of `image` scaled by one factor: `choose` takes one of the two that meet `size` on an axis."""
    height, width = image.shape[:2]
    scale = choose(size[0] / height, size[1] / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _cut_centre(image: Pixels, size: Size) -> Pixels:
    top, left = ((have - want) // 2 for have, want in zip(image.shape[:2], size, strict=True))
    return np.ascontiguousarray(image[top : top + size[0], left : left + size[1]])


def _pad_evenly(image: Pixels, size: Size) -> Pixels:
    canvas = np.zeros((*size, image.shape[2]), np.uint8)
    top, left = ((want - have) // 2 for have, want in zip(image.shape[:2], size, strict=True))
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def image_form(images: ImagesConfig) -> ImageForm:
    """The form of an image at the training size."""
    return ImageForm(
        images.height_width,
        images.fit,
        images.channels,
        images.window,
        images.alpha,
        images.max_pixels,
        images.missing_end == "accept",
    )
