"""Decodes image files: a whole image or an `ImageError`, never a part of one."""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.competition.paths import ImagePaths
from pipeline.errors import ImageError
from pipeline.images.decoding.jpeg import END, START, decode_jpeg
from pipeline.images.decoding.samples import Samples, to_channels, to_uint8, turn_upright
from pipeline.images.decoding.tiff import is_tiff, read_tiff
from pipeline.images.geometry import ImageForm, Pixels, Reading, Size, to_form
from pipeline.machine import regular

# The ImageError describes a broken file better than the warnings of OpenCV and Pillow.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.")
Image.MAX_IMAGE_PIXELS = None  # images.max_pixels is the limit

AGAIN = "copy or download the file again, or take its row out of the table"
_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_MANY = 25_000_000  # pixels; a larger image is in memory for one thread at a time
_LARGE = threading.RLock()
_ORIENTATION, _FIRST_TURNED = 0x0112, 5  # from this value on, height and width are swapped
_REDUCED = {  # by scale: flags that decode a JPEG at 1 / scale of its size, in colour and grey
    8: (cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
    4: (cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    2: (cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    1: (cv2.IMREAD_COLOR, cv2.IMREAD_GRAYSCALE),
}


class EncodedImage(NamedTuple):
    """The content of an image file, with the size (H, W) and EXIF orientation of its header.

    The size is as stored, (0, 0) where the header is not known or a TIFF's.
    """

    data: bytes
    size: Size
    orientation: int


def load_image(paths: ImagePaths, form: ImageForm) -> Pixels:
    """One image in one form, as `load_forms`."""
    return load_forms(paths, (form,))[0]


def load_forms(paths: ImagePaths, forms: Sequence[ImageForm]) -> tuple[Pixels, ...]:
    """One image in each form, uint8 (H, W, C), or smaller where the form is bound.

    The result depends on the files and that form alone. Forms of the same reading share one decoded image, unless
    their sizes differ so much that a JPEG is decoded at another fraction of its size for them, see `read_image`.

    Raises:
        ImageError: as `read_image`.
    """
    if len(paths) != 1:
        bands = {reading: read_image(paths, reading) for reading in {form.reading for form in forms}}
        return tuple(to_form(bands[form.reading], form) for form in forms)
    file = read_whole(paths[0], forms[0].reading)
    scales = _scales(file, [form.size for form in forms])
    keys = [(form.reading, scale) for form, scale in zip(forms, scales, strict=True)]
    with _room(file):
        decoded = {key: _read_file(paths[0], file, *key) for key in dict.fromkeys(keys)}
        return tuple(to_form(decoded[key], form) for key, form in zip(keys, forms, strict=True))


def read_image(
    paths: ImagePaths,
    reading: Reading,
    *,
    at_least: Size | None = None,
) -> Pixels:
    """Decode one image to (H, W, channels) uint8, RGB order, C-contiguous, EXIF orientation applied.

    Where an image has several files, each gives one grey channel, in their order. Otherwise grey is replicated to
    RGB, RGB becomes grey by luma, palettes and CMYK become RGB, and an animation gives its first frame. Numbers of
    channels other than 1, 3 and 4 need a TIFF with as many bands or as many grey pages.

    Args:
        paths: one file, or one per channel.
        reading: as in `ImageForm`; 4 channels append the file's alpha to RGB, or 255 where it has none; the alpha of a
            PNG has no window; the colour behind transparent pixels applies to 1 and 3 channels.
        at_least: a JPEG that is much larger than this (H, W) in both axes is decoded at 1/2, 1/4 or 1/8 of its
            size, but no smaller than this one. That is several times faster.

    Raises:
        ImageError: a file is missing, empty, truncated, too large or not an image; its samples need a window; its
            channels cannot be converted to `channels`; the files of one image differ in size.
    """
    if len(paths) == 1:
        file = read_whole(paths[0], reading)
        scale = 1 if at_least is None else _scales(file, [at_least])[0]
        with _room(file):
            return _read_file(paths[0], file, reading, scale)
    if len(paths) != reading.channels:
        raise ImageError(
            f"image {paths[0]} has {len(paths)} files",
            expected=f"one file, or one for each of {reading.channels} channels",
            got=f"{len(paths)} files",
            remedy="set images.channels to the number of competition.images.channel_files",
        )
    one = reading._replace(channels=1)
    bands = [_read_file(path, read_whole(path, one), one, 1) for path in paths]
    for path, band in zip(paths, bands, strict=True):
        if band.shape != bands[0].shape:
            raise ImageError(
                f"image {path} has another size than {paths[0]}, a channel of the same image",
                expected=_size_words(bands[0]),
                got=_size_words(band),
                remedy=AGAIN,
            )
    return np.concatenate(bands, axis=2)


def has_end(head: bytes, tail: bytes) -> bool:
    """Whether a JPEG or PNG ends with its end marker; False for other kinds, which have none."""
    if head.startswith(START):
        return tail.endswith(END)
    return head.startswith(_PNG) and tail.endswith(_PNG_END)


def _room(file: EncodedImage) -> AbstractContextManager[object]:
    """Hold the lock for large images while this one is decoded, if it is large, or a TIFF."""
    known, pixels = file.size != (0, 0), file.size[0] * file.size[1]
    return contextlib.nullcontext() if known and pixels <= _MANY else _LARGE


def _read_file(path: Path, file: EncodedImage, reading: Reading, scale: int) -> Pixels:
    """Decode `file`, read from `path`, to (H, W, channels), at 1 / `scale` of its size if it is a JPEG."""
    channels, window, alpha = reading.channels, reading.window, reading.alpha
    try:
        samples = _decode(file, reading, scale)
    except (ValueError, cv2.error, MemoryError) as error:
        got = error.err if isinstance(error, cv2.error) else str(error)
        raise _not_an_image(path, got) from error
    try:
        if samples.shape[2] == 4 and window is not None and not is_tiff(file.data):
            image = np.concatenate([to_uint8(samples[:, :, :3], window), to_uint8(samples[:, :, 3:], None)], axis=2)
        else:
            image = to_uint8(samples, window)
    except ValueError as error:
        raise ImageError(
            f"image {path} has {samples.dtype} samples",
            expected="8 or 16 bit integers, or images.window",
            got=f"values from {np.nanmin(samples):g} to {np.nanmax(samples):g}" if samples.size else "nothing",
            remedy="set images.window: [LOW, HIGH] to the values that are to be black and white",
        ) from error
    try:
        return to_channels(image, channels, alpha)
    except ValueError as error:
        raise ImageError(
            f"image {path} has {image.shape[2]} channels",
            expected=str(channels),
            got=str(image.shape[2]),
            remedy="set images.channels to the number of channels that all images have",
        ) from error


def read_whole(path: Path, reading: Reading) -> EncodedImage:
    """The file with its header, and with the end that `reading` lets a JPEG lack.

    Raises:
        ImageError: it cannot be opened, ends too early, or has too many pixels by its header.
    """
    try:
        # Not cv2.imread, which cannot open a non-ASCII path on every system and gives no reason for a failure.
        data = regular(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise _cannot_open(path, error) from error
    if not data:
        raise ImageError(f"image {path} is empty", got="0 bytes", remedy=AGAIN)
    (height, width), orientation = _size_and_orientation(data)
    if height * width > reading.max_pixels:
        raise ImageError(
            f"image {path} has {width} x {height} pixels",
            expected=f"at most {reading.max_pixels:,} pixels",
            got=f"{width * height:,}",
            remedy="shrink the image, or set images.max_pixels",
        )
    if reading.without_end and data.startswith(START) and not data.endswith(END):
        data += END  # the decoder refuses it if pixels are missing
    _require_whole(path, data)
    return EncodedImage(data, (height, width), orientation)


def _cannot_open(path: Path, error: OSError | ValueError) -> ImageError:
    if isinstance(error, FileNotFoundError):
        remedy = "check the image folder, the file extension and the table's ids"
        return ImageError(f"image {path} does not exist", remedy=remedy)
    got = getattr(error, "strerror", None) or str(error)
    return ImageError(f"image {path} cannot be opened", got=got, remedy="check what it is and who may read it")


def _require_whole(path: Path, data: bytes) -> None:
    """Raise ImageError if `data` ends too early: some OpenCV versions return the missing rest as grey or black."""
    if has_end(data[:8], data[-8:]) or is_tiff(data):
        return
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (UnidentifiedImageError, Warning):
        return  # Pillow does not know this kind: the decoder decides
    except (OSError, SyntaxError) as error:
        raise ImageError(f"image {path} is truncated", got=str(error), remedy=AGAIN) from error
    except Exception as error:
        raise ImageError(f"image {path} is damaged", got=repr(error), remedy=AGAIN) from error


def _decode(file: EncodedImage, reading: Reading, scale: int) -> Samples:
    """Samples (H, W, n) in the file's own type, RGB order, upright. Raises ValueError or cv2.error."""
    data, channels, alpha = file.data, reading.channels, reading.alpha
    if is_tiff(data):
        return read_tiff(data, channels, max_pixels=reading.max_pixels)
    if data.startswith(START):
        pixels = decode_jpeg(data, grey=channels == 1, scale=scale)
        if pixels is not None and file.orientation == 1:
            return pixels
    buffer = np.frombuffer(data, np.uint8)
    if (channels not in (1, 3) or alpha is not None) and not data.startswith(START):
        image = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
        if image is not None and image.shape[2:] == (4,):
            # OpenCV turns all other images upright, but not these.
            return turn_upright(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA), file.orientation)
    colour, grey = _REDUCED[scale]
    image = cv2.imdecode(buffer, (grey if channels == 1 else colour) | cv2.IMREAD_ANYDEPTH)
    if image is None:
        raise ValueError(f"a file that begins with {data[:8]!r}")
    return np.atleast_3d(image) if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _scales(file: EncodedImage, sizes: Sequence[Size]) -> list[int]:
    """For each size the largest of 8, 4, 2 and 1 by which a JPEG can be reduced and still have this size; else 1."""
    own = file.size if file.data.startswith(START) else (0, 0)
    own = own[::-1] if file.orientation >= _FIRST_TURNED else own
    return [next((scale for scale in _REDUCED if _reaches(own, scale, wanted)), 1) for wanted in sizes]


def _reaches(own: Size, scale: int, wanted: Size) -> bool:
    return all(-(-have // scale) >= want for have, want in zip(own, wanted, strict=True))


def _size_and_orientation(data: bytes) -> tuple[Size, int]:
    """(H, W) as stored and the EXIF orientation as Pillow reads them; (0, 0) and 1 for a TIFF or where it cannot."""
    if is_tiff(data):
        return (0, 0), 1
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            exif = image.getexif() if data.startswith(START) or image.info.get("exif") else {}  # else a PNG is decoded
            return (height, width), int(exif.get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 (as above; the decoder reports the problem)
        return (0, 0), 1


def _not_an_image(path: Path, got: str) -> ImageError:
    expected = "a whole JPEG, PNG, WebP, BMP, GIF or TIFF"
    return ImageError(f"{path} is not an image that can be decoded", expected=expected, got=got, remedy=AGAIN)


def _size_words(image: Pixels) -> str:
    return f"{image.shape[0]} x {image.shape[1]} pixels (height x width)"
