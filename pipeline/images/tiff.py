"""TIFF, where one image may be several pages or any number of bands."""

from __future__ import annotations

import io
import zlib
from typing import NamedTuple

import cv2
import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pipeline.images.samples import Samples

_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BY_OPENCV = (1, 3, 4)  # bands
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _OFFSETS, _BANDS = 256, 257, 258, 259, 273, 277
_COUNTS, _PLANAR, _PREDICTOR, _SAMPLE_FORMAT = 279, 284, 317, 339
_PLAIN, _DEFLATED = 1, (8, 32946)
_KINDS = {1: "u", 2: "i", 3: "f"}
_LARGEST = 1 << 30  # samples, as many as OpenCV allows pixels


def is_tiff(data: bytes) -> bool:
    """Whether a file that begins with `data` says that it is a TIFF."""
    return data[:4] in _HEADS


def read_tiff(data: bytes, channels: int) -> Samples:
    """The bands (H, W, n) of a TIFF in the file's own sample type, colours in RGB order, upright.

    Where it has exactly `channels` grey pages of one size, each page is a band; else the first page counts.

    Raises:
        ValueError: it cannot be decoded; the message says why.
    """
    layout = _layout(data)
    if layout.bands not in _BY_OPENCV:
        return _read_bands(data, layout)
    try:
        done, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(error.err) from error
    if not done or not pages:
        raise ValueError("a TIFF without a page that can be decoded")
    shapes = {(page.shape, page.dtype) for page in pages}
    first = np.atleast_3d(pages[0])
    if len(pages) == channels and len(shapes) == 1 and first.shape[2] == 1:
        return np.dstack(pages)
    return first[:, :, [2, 1, 0, 3][: first.shape[2]]] if first.shape[2] > 1 else first


class _Layout(NamedTuple):
    """How the first page is stored; numbers that a page may leave out have their defaults."""

    height: int
    width: int
    bands: int
    kind: str  # of a sample, as numpy names it, in the file's byte order
    compression: int
    predictor: int
    planes: bool
    strips: tuple[tuple[int, int], ...]  # offset and number of bytes


def _layout(data: bytes) -> _Layout:
    big = data[2:4] in (b"+\0", b"\0+")
    try:
        tags = ImageFileDirectory_v2(data[: 16 if big else 8])
        stream = io.BytesIO(data)
        stream.seek(tags.next)
        tags.load(stream)
        formats, bits = tags.get(_SAMPLE_FORMAT, (1,)), tags.get(_BITS, (1,))
        kind = f"{data[:1].translate(_ORDER).decode()}{_KINDS.get(formats[0], '?')}{bits[0] // 8}"
        return _Layout(
            height=int(tags[_HEIGHT]),
            width=int(tags[_WIDTH]),
            bands=int(tags.get(_BANDS, 1)),
            kind=kind if len({*formats}) == len({*bits}) == 1 else "?",
            compression=int(tags.get(_COMPRESSION, _PLAIN)),
            predictor=int(tags.get(_PREDICTOR, 1)),
            planes=tags.get(_PLANAR, 1) == 2,
            strips=tuple(zip(tags.get(_OFFSETS, ()), tags.get(_COUNTS, ()), strict=True)),
        )
    except Exception as error:  # what Pillow's parser meets in broken tags, it raises as it is
        raise ValueError(f"a TIFF whose tags cannot be read: {error!r}") from error


_ORDER = bytes.maketrans(b"IM", b"<>")


def _read_bands(data: bytes, layout: _Layout) -> Samples:
    """A number of bands that OpenCV cannot read: strips, plain or deflated."""
    height, width, bands = layout.height, layout.width, layout.bands
    known = layout.compression in (_PLAIN, *_DEFLATED) and layout.predictor == 1 and layout.strips
    if not known or "?" in layout.kind or not 0 < height * width * bands <= _LARGEST:
        raise ValueError(f"a TIFF of {bands} bands, and not in plain or deflated strips of one sample type")
    size = height * width * bands * np.dtype(layout.kind).itemsize
    parts = [data[start : start + count] for start, count in layout.strips]
    try:
        if layout.compression != _PLAIN:
            parts = [zlib.decompressobj().decompress(part, size) for part in parts]
    except zlib.error as error:
        raise ValueError(f"a TIFF with a broken strip: {error}") from error
    raw = b"".join(parts)
    if len(raw) < size:
        raise ValueError(f"a truncated TIFF: {len(raw)} bytes of {size}")
    flat = np.frombuffer(raw[:size], layout.kind)
    stored = (
        flat.reshape(bands, height, width).transpose(1, 2, 0) if layout.planes else flat.reshape(height, width, bands)
    )
    return stored.astype(stored.dtype.newbyteorder("="))
