"""Statistics of image files: problem, mode, size, brightness, digest and thumbnail.

Fast, for audits: each file is read once, and a JPEG is decoded at a fraction of its size.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
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
from pipeline.images.decoding.decode import EncodedImage, has_end, read_image, read_whole
from pipeline.images.decoding.jpeg import START, decode_jpeg
from pipeline.images.decoding.tiff import is_tiff, read_tiff
from pipeline.images.geometry import MAX_PIXELS, Reading
from pipeline.images.near_duplicates import SIDE, thumbnail

_PNG, _PNG_BITS = b"\x89PNG\r\n\x1a\n", 24
_DEEP = (_PNG, b"\x00\x00\x00\x0cjP  ", b"P5", b"P6")  # PNG, JPEG 2000, PGM and PPM may have 16 bits
_FULL = 65535
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
        largest: the largest sample of files of 16 bits; 0 for other files.
    """

    problem: str | None
    mode: str = ""
    width: int = 0
    height: int = 0
    brightness: float = 0.0
    constant: bool = False
    digest: bytes = b""
    thumbnail: NDArray[np.uint8] | None = None
    largest: int = 0


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
    digest, greys, kind, largest = hashlib.blake2b(digest_size=16), [], ("", 0, 0), 0
    for number, path in enumerate(paths):
        try:
            file = read_whole(path, reading)
        except ImageError as error:
            return ImageStats(error.problem)
        data = file.data
        digest.update(data)
        largest = max(largest, _largest_sample(data))
        found = _kind(data)
        grey = None if found is None or not has_end(data[:8], data[-8:]) else _grey(file, *found)
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
        largest=largest,
    )


def few_bits(largest: Iterable[int], window: object) -> tuple[str, str] | None:
    """The problem and the remedy where files of 16 bits use so few of them that most grey levels are lost.

    Args:
        largest: the largest sample of each image, as in `ImageStats`.
        window: of the config; with one, nothing is lost.
    """
    most = max(largest, default=0)
    if window is not None or not 0 < most < _FULL // 2:
        return None
    bits = most.bit_length()
    bits += bits in (9, 11, 13)  # sensors have 8, 10, 12 or 14; a few dark images may not use the highest
    top = (1 << bits) - 1
    return (
        f"images of 16 bits hold no value above {most} of {_FULL}, which leaves {most // 257 + 1} of 256 grey levels",
        f"set images.window: [0, {top}]",
    )


def largest_samples(paths: Iterable[ImagePaths]) -> list[int]:
    """The largest sample of each image of 16 bits, 0 for other images and for files that cannot be read."""
    found = []
    for image in paths:
        try:
            found.append(max(_largest_sample(read_whole(path, Reading(1)).data) for path in image))
        except ImageError:
            found.append(0)
    return found


def _largest_sample(data: bytes) -> int:
    """The largest sample of a file with 16 bits, without its alpha; 0 for other files and those that cannot be read."""
    if is_tiff(data):
        try:
            samples = read_tiff(data, 3, max_pixels=MAX_PIXELS)
        except (ValueError, cv2.error):
            return 0
    elif data.startswith(_DEEP) and (not data.startswith(_PNG) or data[_PNG_BITS : _PNG_BITS + 1] == b"\x10"):
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is None:
            return 0
        samples = decoded[:, :, :3] if decoded.ndim > 2 else decoded
    else:
        return 0
    return int(samples.max()) if samples.dtype == np.uint16 else 0


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
    pixels = read_image((path,), reading._replace(channels=channels))
    grey = pixels[:, :, 0] if channels == 1 else pixels.mean(axis=2).round().astype(np.uint8)
    return np.ascontiguousarray(grey)


def _grey(file: EncodedImage, mode: str, width: int, height: int) -> NDArray[np.uint8] | None:
    """Grey pixels, of a JPEG only as many as needed; 16-bit samples over their own range, or all may be black."""
    data, deep = file.data, mode.startswith(("I", "F"))
    largest = min(width, height) // _ENOUGH
    scale = next((scale for scale in _REDUCED if scale <= largest), 1)
    if data.startswith(START):
        try:
            pixels = decode_jpeg(data, grey=True, scale=scale)
        except ValueError:
            return None
        if pixels is not None and file.orientation == 1:
            return pixels[:, :, 0]
    flag = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH if deep else _REDUCED.get(scale, cv2.IMREAD_GRAYSCALE)
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
        whole = [read_image((path,), reading._replace(channels=channels)) for path in paths]
    except ImageError:  # it was decoded above, so it is not broken; a run reports why it cannot use it
        return False
    return all(int(np.ptp(pixels.reshape(-1, channels), axis=0).max()) == 0 for pixels in whole)
