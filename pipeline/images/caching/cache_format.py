"""The two formats of a cache file: rows of raw pixels (.npy), or JPEGs with a table of their ends.

Both are written row by row, so that an incomplete file is valid up to the last flushed row.
"""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.images.geometry import ImageForm, Pixels

CacheFormat: TypeAlias = Literal["raw", "jpeg"]
ImageMap: TypeAlias = np.memmap[Any, np.dtype[np.uint8]]
RowMap: TypeAlias = np.memmap[Any, np.dtype[np.void]]

QUALITY = 95
_MAGIC, _SHAPE = b"Q2L-JPEG", struct.Struct("<QIII")  # N, H, W, C; then N ends as uint64, counted from the first JPEG
_END = 8  # bytes of an end
_SIZE_BYTES = 8  # of the (h, w) before a row of raw pixels


class RawRows:
    """An .npy file of `count` rows, each with the image's own size (h, w) and room for (H, W, C) uint8 pixels."""

    suffix = ".npy"

    def __init__(self, count: int, form: ImageForm) -> None:
        self._row, stream = row_bytes(form), io.BytesIO()
        described = {
            "descr": _row_fields(form.shape),
            "fortran_order": False,
            "shape": (count,),
        }
        np.lib.format.write_array_header_1_0(stream, described)
        self.header = self.fixed = stream.getvalue()

    def encode(self, image: Pixels) -> bytes:
        """The row of an image: its size, its pixels, and zeros where it is smaller than the form."""
        return (np.array(image.shape[:2], "<u4").tobytes() + image.tobytes()).ljust(self._row, b"\0")

    def end_of(self, stream: BinaryIO, rows: int) -> int:  # noqa: ARG002 (as JpegRows has it)
        """The length of a file of `rows` rows."""
        return len(self.header) + rows * self._row

    def write_ends(self, stream: BinaryIO, start: int, lengths: Sequence[int]) -> None:
        """Do nothing: all rows have the same length."""


class JpegRows:
    """A header, the ends of all `count` JPEGs, then the JPEGs: quality 95, colour at full resolution (4:4:4)."""

    suffix = ".jpegs"

    def __init__(self, count: int, form: ImageForm) -> None:
        self._table = len(_MAGIC) + _SHAPE.size
        self.fixed = _MAGIC + _SHAPE.pack(count, *form.shape)
        self.header = self.fixed + bytes(_END * count)

    def encode(self, image: Pixels) -> bytes:
        """The image (H, W, 1 or 3) as a JPEG; several threads may call this."""
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.shape[2] == 3 else image
        full_colour = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, full_colour]
        done, data = cv2.imencode(".jpg", bgr, options)
        assert done, image.shape
        return data.tobytes()

    def end_of(self, stream: BinaryIO, rows: int) -> int:
        """The length of a file of `rows` rows. Raises ValueError where the table lacks that many growing ends."""
        place = stream.tell()
        stream.seek(self._table)
        ends = np.frombuffer(stream.read(_END * rows), "<u8")
        stream.seek(place)
        if len(ends) != rows or not (np.diff(ends, prepend=np.zeros(1, ends.dtype)).view("<i8") > 0).all():
            raise ValueError(f"expected {rows} ends that grow")
        return len(self.header) + self._end(stream, rows)

    def write_ends(self, stream: BinaryIO, start: int, lengths: Sequence[int]) -> None:
        """Write the ends of the rows from `start` on into the table; the stream keeps its position."""
        ends = self._end(stream, start) + np.cumsum(lengths, dtype="<u8")
        place = stream.tell()
        stream.seek(self._table + _END * start)
        stream.write(ends.astype("<u8").tobytes())
        stream.seek(place)

    def _end(self, stream: BinaryIO, rows: int) -> int:
        if rows == 0:
            return 0
        place = stream.tell()
        stream.seek(self._table + _END * (rows - 1))
        data = stream.read(_END)
        stream.seek(place)
        return int.from_bytes(data, "little")


RowFormat: TypeAlias = RawRows | JpegRows
ROW_FORMATS: dict[CacheFormat, type[RawRows] | type[JpegRows]] = {"raw": RawRows, "jpeg": JpegRows}


def row_bytes(form: ImageForm) -> int:
    """The bytes of an image in a file of raw pixels."""
    return _SIZE_BYTES + math.prod(form.shape)


def open_pixels(file: Path) -> RowMap:
    """Map a complete file of raw pixels read-only: (N,), with the fields `size` (2,) and `pixels` (H, W, C)."""
    rows = np.load(file, mmap_mode="r")
    assert isinstance(rows, np.memmap), file
    return rows


def _row_fields(shape: tuple[int, ...]) -> list[tuple[str, str, tuple[int, ...]]]:
    return [("size", "<u4", (2,)), ("pixels", "|u1", shape)]


def open_jpegs(file: Path) -> tuple[tuple[int, int, int], NDArray[np.uint64], ImageMap]:
    """Map a complete file of JPEGs read-only: returns (H, W, C), the ends (N,), and the bytes of all JPEGs."""
    start = len(_MAGIC) + _SHAPE.size
    with file.open("rb") as stream:
        head = stream.read(start)
    assert head.startswith(_MAGIC), file
    count, height, width, channels = _SHAPE.unpack(head[len(_MAGIC) :])
    ends: NDArray[np.uint64] = np.memmap(file, "<u8", "r", start, (count,))
    data: ImageMap = np.memmap(
        file, np.uint8, "r", start + _END * count, (os.stat(file).st_size - start - _END * count,)
    )
    assert len(data) == int(ends[-1]), file
    return (height, width, channels), ends, data
