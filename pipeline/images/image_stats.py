"""Statistics of image files: problem, mode, size, brightness, digest and thumbnail.

Fast, for audits: each file is read once, and a JPEG is decoded at a fraction of its size.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.competition.paths import ImagePaths
from pipeline.errors import ImageError
from pipeline.images.decoding.decode import has_end, read_image
from pipeline.images.geometry import Reading
from pipeline.images.near_duplicates import SIDE, thumbnail

_ENOUGH = 2 * SIDE  # pixels of the shorter side from which a thumbnail is made
_REDUCED = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
}


@dataclass(frozen=True, eq=False)
class ImageStats:
    """The statistics of one image; where it has several files, the first gives mode and size.

    Attributes:
        problem: why it cannot be read, one line; the other attributes are then empty. None where it can be read.
        mode: Pillow's name of the kind of pixels, such as RGB, L, P, CMYK, RGBA, I;16.
        width, height: in pixels, as stored.
        brightness: mean grey from 0 to 255.
        constant: whether all pixels are the same.
        digest: of the bytes of all its files.
        thumbnail: (SIDE, SIDE) grey, the mean of its files.
    """

    problem: str | None
    mode: str = ""
    width: int = 0
    height: int = 0
    brightness: float = 0.0
    constant: bool = False
    digest: bytes = b""
    thumbnail: NDArray[np.uint8] | None = None


def read_image_stats(
    paths: Sequence[ImagePaths], reading: Reading, *, threads: int, progress: Callable[[int], None] | None = None
) -> list[ImageStats]:
    """The statistics of each image, in their order; `progress` is called in this thread with the number done so far."""
    stats = []
    with ThreadPoolExecutor(threads) as pool:
        for done, one in enumerate(pool.map(partial(_image_stats, reading=reading), paths), start=1):
            stats.append(one)
            if progress is not None:
                progress(done)
    return stats


def _image_stats(paths: ImagePaths, reading: Reading) -> ImageStats:
    """The statistics of one image; a problem is returned, not raised."""
    digest, greys, kind = hashlib.blake2b(digest_size=16), [], ("", 0, 0)
    for number, path in enumerate(paths):
        try:
            data = path.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            missing = isinstance(error, FileNotFoundError)
            return ImageStats(f"image {path} does not exist" if missing else f"image {path} cannot be opened")
        digest.update(data)
        found = _kind(data)
        grey = None if found is None or not has_end(data[:8], data[-8:]) else _grey(data, *found)
        if grey is None:  # the pipeline's own decoder reads unusual files, and gives the reason where it cannot
            try:
                grey = _grey_as_read(path, reading, alone=len(paths) == 1)
            except ImageError as error:
                return ImageStats(error.problem)
            found = found or ("unknown", grey.shape[1], grey.shape[0])
        assert found is not None
        kind = found if number == 0 else kind
        greys.append(grey)
    small = np.mean([thumbnail(grey) for grey in greys], axis=0).round().astype(np.uint8)
    return ImageStats(
        problem=None,
        mode=kind[0],
        width=kind[1],
        height=kind[2],
        brightness=float(np.mean([grey.mean() for grey in greys])),
        constant=all(int(grey.min()) == int(grey.max()) for grey in greys) and _all_constant(paths, reading),
        digest=digest.digest(),
        thumbnail=small,
    )


def _kind(data: bytes) -> tuple[str, int, int] | None:
    """Mode, width and height from the header; None where Pillow cannot read it."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.mode, image.width, image.height
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def _grey_as_read(path: Path, reading: Reading, *, alone: bool) -> NDArray[np.uint8]:
    """Grey of a file, which is an image `alone` or one of its channels: luma of colours, the mean of other bands."""
    channels = reading.channels if alone and reading.channels not in (1, 3) else 1
    pixels = read_image((path,), channels=channels, window=reading.window, alpha=reading.alpha)
    grey = pixels[:, :, 0] if channels == 1 else pixels.mean(axis=2).round().astype(np.uint8)
    return np.ascontiguousarray(grey)


def _grey(data: bytes, mode: str, width: int, height: int) -> NDArray[np.uint8] | None:
    """Grey pixels, of a JPEG only as many as needed; 16-bit samples over their own range, or all may be black."""
    deep = mode.startswith(("I", "F"))
    largest = min(width, height) // _ENOUGH
    reduced = next((flag for scale, flag in _REDUCED.items() if scale <= largest), cv2.IMREAD_GRAYSCALE)
    flag = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH if deep else reduced
    try:
        grey = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        return None
    if grey is None:
        return None
    if grey.dtype != np.uint8:
        low, high = float(grey.min()), float(grey.max())
        grey = ((grey.astype(np.float32) - low) * (255 / max(high - low, 1e-6))).round().astype(np.uint8)
    return np.asarray(grey, np.uint8)


def _all_constant(paths: ImagePaths, reading: Reading) -> bool:
    """Whether the whole image is constant: a reduced decode may have averaged a fine pattern away."""
    channels = reading.channels if len(paths) == 1 and reading.channels != 1 else 3
    try:
        whole = [read_image((path,), channels=channels, window=reading.window, alpha=reading.alpha) for path in paths]
    except ImageError:  # it was decoded above, so it is not broken; a run reports why it cannot use it
        return False
    return all(int(np.ptp(pixels.reshape(-1, channels), axis=0).max()) == 0 for pixels in whole)
