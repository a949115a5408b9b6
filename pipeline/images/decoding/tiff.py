"""Decodes TIFF, where an image may have several pages or any number of bands."""

from __future__ import annotations

import io
import zlib
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pipeline.images.decoding.samples import Samples, turn_upright

_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORDERS = bytes.maketrans(b"IM", b"<>")  # byte orders in numpy's notation
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _OFFSETS = 256, 257, 258, 259, 262, 273
_ORIENTATION, _BANDS, _COUNTS, _PLANAR, _PREDICTOR, _EXTRA, _FORMAT = 274, 277, 279, 284, 317, 338, 339
_PLAIN, _DEFLATED, _CMYK, _PREMULTIPLIED = 1, (8, 32946), 5, 1
_KINDS = {1: "u", 2: "i", 3: "f"}
_LARGEST = 1 << 30  # samples, as many as OpenCV allows pixels


def is_tiff(data: bytes) -> bool:
    """Whether a file that begins with `data` has the header of a TIFF."""
    return data[:4] in _HEADS


def read_tiff(data: bytes, channels: int) -> Samples:
    """The bands (H, W, n) of a TIFF in the file's own sample type, colours in RGB order, upright.

    Where it has exactly `channels` grey pages of one size, each page is a band; otherwise the first page is read.

    Raises:
        ValueError: it cannot be decoded; the message gives the reason.
    """
    layout = _layout(data)
    if layout.bands in (1, 3) or layout.photometric == _CMYK:
        return _by_opencv(data, channels)
    if layout.is_plain:
        return turn_upright(_read_strips(data, layout), layout.orientation)
    if layout.bands in (2, 4) and layout.kind[1:] == "u1":
        return _by_pillow(data, "LA" if layout.bands == 2 else "RGBA")
    if layout.bands == 4:
        return _by_opencv(data, channels)
    raise ValueError(f"a TIFF of {layout.bands} bands, and not in plain or deflated strips of one sample type")


class _Layout(NamedTuple):
    """How the first page is stored; missing tags have their defaults."""

    height: int
    width: int
    bands: int
    kind: str  # of a sample, in numpy's notation, with the file's byte order
    compression: int
    predictor: int
    photometric: int
    extra: int
    orientation: int
    planes: bool
    strips: tuple[tuple[int, int], ...]  # offset and number of bytes

    @property
    def is_plain(self) -> bool:
        """Whether its strips can be read here, without a library that would convert colours."""
        known = self.compression in (_PLAIN, *_DEFLATED) and self.predictor == 1 and self.extra != _PREMULTIPLIED
        sized = 0 < self.height * self.width * self.bands <= _LARGEST
        return known and sized and "?" not in self.kind and bool(self.strips)


def _layout(data: bytes) -> _Layout:
    big = data[2:4] in (b"+\0", b"\0+")
    try:
        tags = ImageFileDirectory_v2(data[: 16 if big else 8])
        stream = io.BytesIO(data)
        stream.seek(tags.next)
        tags.load(stream)
        formats, bits = tags.get(_FORMAT, (1,)), tags.get(_BITS, (1,))
        kind = f"{_KINDS.get(formats[0], '?')}{bits[0] // 8 or '?'}" if len({*formats}) == len({*bits}) == 1 else "?"
        return _Layout(
            height=int(tags[_HEIGHT]),
            width=int(tags[_WIDTH]),
            bands=int(tags.get(_BANDS, 1)),
            kind=data[:1].translate(_ORDERS).decode() + kind,
            compression=int(tags.get(_COMPRESSION, _PLAIN)),
            predictor=int(tags.get(_PREDICTOR, 1)),
            photometric=int(tags.get(_PHOTOMETRIC, 0)),
            extra=int((*tags.get(_EXTRA, ()), 0)[0]),
            orientation=int(tags.get(_ORIENTATION, 1)),
            planes=tags.get(_PLANAR, 1) == 2,
            strips=tuple(zip(tags.get(_OFFSETS, ()), tags.get(_COUNTS, ()), strict=True)),
        )
    except Exception as error:  # Pillow's parser raises errors of any type on broken tags
        raise ValueError(f"a TIFF whose tags cannot be read: {error!r}") from error


def _by_opencv(data: bytes, channels: int) -> Samples:
    try:
        done, pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ValueError(error.err) from error
    if not done or not pages:
        raise ValueError("a TIFF without a page that can be decoded")
    first = np.atleast_3d(pages[0])
    if len(pages) == channels and len({(page.shape, page.dtype) for page in pages}) == 1 and first.shape[2] == 1:
        return np.dstack(pages)
    return first if first.shape[2] == 1 else first[:, :, [2, 1, 0, 3][: first.shape[2]]]


def _by_pillow(data: bytes, mode: str) -> Samples:
    """8-bit samples with alpha; OpenCV would multiply the alpha into the colours."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert(mode))
    except Exception as error:  # as above
        raise ValueError(f"a TIFF that cannot be decoded: {error!r}") from error


def _read_strips(data: bytes, layout: _Layout) -> Samples:
    height, width, bands = layout.height, layout.width, layout.bands
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
    if layout.planes:
        samples = flat.reshape(bands, height, width).transpose(1, 2, 0)
    else:
        samples = flat.reshape(height, width, bands)
    return samples.astype(samples.dtype.newbyteorder("="))
