"""Decodes TIFF by tifffile and imagecodecs: any tiling, compression and number of bands; one or several pages."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Sequence

import numpy as np
import tifffile
from tifffile import PHOTOMETRIC, TIFF, TiffPage

from pipeline.images.decoding.jpeg import decode_jpeg
from pipeline.images.decoding.samples import Samples, turn_upright

_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _COLOURS, _ORIENTATION, _FORMAT = 258, 262, 274, 339
_GREY = (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK)
_JPEG, _JPEG_END, _JPEG_TAIL = 7, b"\xff\xd9", 8  # some writers fill up a few bytes behind the end
_LZW = 5  # has no checksum, but damage changes the number of bytes
_PREMULTIPLIED = 1
_WHOLE_BYTES, _PARTS = (8, 16, 32, 64), (1, 2, 4)  # bits of a sample
_MOST_BYTES = 1 << 32  # of the samples of all pages

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # the ImageError describes what matters


def is_tiff(data: bytes) -> bool:
    """Whether a file that begins with `data` has the header of a TIFF."""
    return data[:4] in _HEADS


def read_tiff(data: bytes, channels: int, *, max_pixels: int) -> Samples:
    """The bands (H, W, n) of a TIFF in the file's own sample type, colours in RGB order, upright.

    Where it has exactly `channels` grey pages of one size, each page is a band; otherwise the first page is read.
    Palettes and CMYK become RGB of 8 bits; 1, 2 and 4 bits of grey are scaled to 8; alpha is not premultiplied.

    Raises:
        ValueError: it has more than `max_pixels`, or cannot be decoded, or only in part; the message gives the reason.
    """
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            found = file.pages if 1 < len(file.pages) == channels else file.pages[:1]  # else they are no channels
            pages = [page.aspage() for page in found]
            grey = all(page.photometric in _GREY and page.samplesperpixel == 1 for page in pages)
            alike = grey and len({(page.shape, page.dtype) for page in pages}) == 1
            pages = pages if alike else pages[:1]
            _require_small(pages, max_pixels)
            samples = np.concatenate([_read(page, data) for page in pages], axis=2)
            return turn_upright(samples, int(pages[0].tags.valueof(_ORIENTATION, 1)))
    except Exception as error:  # tifffile and its codecs raise errors of any type on damaged files
        raise ValueError(f"a TIFF that cannot be decoded: {error}") from error


def _read(page: TiffPage, data: bytes) -> Samples:
    """The samples (H, W, n) of one page of the file `data`, not turned."""
    _require_readable(page)
    _require_whole(page, data)
    samples = page.asarray(maxworkers=1)
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    samples = np.moveaxis(samples, 0, 2) if page.axes == "SYX" else samples.reshape(*samples.shape[:2], -1)
    if page.photometric == PHOTOMETRIC.PALETTE:
        return _coloured(samples, page)
    if page.bitspersample in _PARTS:
        samples = np.asarray(samples.astype(np.uint8) * (255 // (2**page.bitspersample - 1)), np.uint8)
    if (
        page.tags.valueof(_COLOURS) == PHOTOMETRIC.MINISWHITE
        and page.samplesperpixel == 1
        and samples.dtype.kind == "u"
    ):
        samples = ~samples
    if page.photometric == PHOTOMETRIC.SEPARATED:
        inks = 255 - samples.astype(np.uint32)
        return np.asarray(inks[:, :, :3] * inks[:, :, 3:] // 255, np.uint8)
    if page.extrasamples[:1] == (_PREMULTIPLIED,) and page.samplesperpixel in (2, 4) and samples.dtype == np.uint8:
        return _divided_by_alpha(samples)
    return samples


def _require_small(pages: Sequence[TiffPage], max_pixels: int) -> None:
    first = pages[0]
    pixels = first.imagelength * first.imagewidth
    bands, depth = len(pages) * first.samplesperpixel, 1 if first.dtype is None else first.dtype.itemsize
    if pixels > max_pixels or pixels * bands * depth > _MOST_BYTES:
        raise ValueError(
            f"{first.imagewidth} x {first.imagelength} pixels of {bands} bands; at most {max_pixels:,} pixels "
            f"(images.max_pixels) and {_MOST_BYTES >> 30} GiB are read"
        )


def _require_readable(page: TiffPage) -> None:
    """Raise ValueError for a page whose samples have no meaning here."""
    bands, bits = page.samplesperpixel, page.bitspersample
    if page.axes not in ("YX", "YXS", "SYX"):
        raise ValueError(f"an image with the axes {page.axes}")
    for tag in (_BITS, _FORMAT):
        values = page.tags.valueof(tag)
        if isinstance(values, tuple) and len({*values}) > 1:
            raise ValueError(f"bands of several sample types: {values}")
    whole = bits in _WHOLE_BYTES and page.dtype is not None and page.dtype.kind in "uif"
    if not whole and not (bits in _PARTS and bands == 1):
        raise ValueError(f"samples of {bits} bits")
    known = {*_GREY, PHOTOMETRIC.RGB} | ({PHOTOMETRIC.YCBCR} if page.compression == _JPEG else set())
    palette = page.photometric == PHOTOMETRIC.PALETTE and page.colormap is not None and bands == 1
    cmyk = page.photometric == PHOTOMETRIC.SEPARATED and (bands, bits) == (4, 8)
    if page.photometric not in known and not palette and not cmyk:
        raise ValueError(f"the colour model {PHOTOMETRIC(page.photometric).name} of {bands} bands and {bits} bits")


def _require_whole(page: TiffPage, data: bytes) -> None:
    """Raise ValueError where a strip or tile is missing or cut off: the decoders would leave the rest grey or black."""
    count = math.prod(page.chunked)
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if len(parts) < count:
        raise ValueError(f"{len(parts)} of {count} strips or tiles")
    if any(start <= 0 or size <= 0 or start + size > len(data) for start, size in parts[:count]):
        raise ValueError("truncated, or without some of its strips or tiles")
    for number, (start, size) in enumerate(parts[:count]):
        _require_sound(page, number, data[start : start + size])


def _require_sound(page: TiffPage, number: int, part: bytes) -> None:
    """Raise ValueError for damage in a strip or tile that tifffile would decode to other pixels or fill up."""
    if page.compression == _JPEG:
        if _JPEG_END not in part[-_JPEG_TAIL:]:
            raise ValueError("a strip or tile without the end of its JPEG")
        if page.bitspersample == 8:
            tables = page.jpegtables or b""
            decode_jpeg(tables[:-2] + part[2:] if tables else part, grey=page.samplesperpixel == 1, scale=8)
    elif page.compression == _LZW and page.bitspersample in _WHOLE_BYTES:
        row = math.prod(page.chunks[1:]) * page.bitspersample // 8
        last = page.imagelength % page.chunks[0] or page.chunks[0]
        is_last = not page.is_tiled and (number + 1) % page.chunked[page.axes.index("Y")] == 0
        sizes = {page.chunks[0] * row, last * row if is_last else page.chunks[0] * row}
        if len(TIFF.DECOMPRESSORS[page.compression](part)) not in sizes:
            raise ValueError("a strip or tile of another size than its header's")


def _coloured(samples: Samples, page: TiffPage) -> Samples:
    """RGB (H, W, 3) of 8 bits of the indices (H, W, 1) into the page's palette."""
    palette = np.asarray(page.colormap)
    if palette.max() > np.iinfo(np.uint8).max:  # some writers have 8 bits
        palette = palette >> 8
    return np.asarray(palette.T[samples[:, :, 0].astype(np.intp)], np.uint8)


def _divided_by_alpha(samples: Samples) -> Samples:
    alpha = samples[:, :, -1:].astype(np.uint32)
    colours = np.minimum(samples[:, :, :-1] * np.uint32(255) // np.maximum(alpha, 1), 255)
    return np.asarray(np.concatenate([np.where(alpha > 0, colours, 0), alpha], axis=2), np.uint8)
