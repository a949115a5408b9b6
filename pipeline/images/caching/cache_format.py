"""How images lie in a cache file: raw pixels as .npy, or small JPEGs one after the other with their ends.

Both grow row by row from the front, so that a file that broke off is good up to the rows that were flushed.
"""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias

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


class Packing(Protocol):
    """How `count` images of one form become one file."""

    suffix: str
    header: bytes

    def pack(self, image: Pixels) -> bytes:
        """The bytes of one image; called by several threads."""

    def end_of(self, stream: BinaryIO, rows: int) -> int:
        """The length of a file whose first `rows` rows are complete. Raises ValueError if it does not hold so many."""

    def note(self, stream: BinaryIO, start: int, lengths: Sequence[int]) -> None:
        """Write down where the rows from `start` on end; the stream's position is as before."""


class RawPacking:
    """An .npy file of N rows, each an image's own (h, w) and room for the pixels of (H, W, C) uint8."""

    suffix = ".npy"

    def __init__(self, count: int, form: ImageForm) -> None:
        self._row, stream = row_bytes(form), io.BytesIO()
        described = {
            "descr": _row_fields(form.shape),
            "fortran_order": False,
            "shape": (count,),
        }
        np.lib.format.write_array_header_1_0(stream, described)
        self.header = stream.getvalue()

    def pack(self, image: Pixels) -> bytes:
        """Its size and pixels, then zeros where it is smaller than the form."""
        return (np.array(image.shape[:2], "<u4").tobytes() + image.tobytes()).ljust(self._row, b"\0")

    def end_of(self, stream: BinaryIO, rows: int) -> int:  # noqa: ARG002 (as Packing has it)
        """All rows are of the same length."""
        return len(self.header) + rows * self._row

    def note(self, stream: BinaryIO, start: int, lengths: Sequence[int]) -> None:
        """Nothing to note."""


class JpegPacking:
    """A header, the ends of all N JPEGs, then the JPEGs: quality 95, colour at full resolution (4:4:4)."""

    suffix = ".jpegs"

    def __init__(self, count: int, form: ImageForm) -> None:
        self._table = len(_MAGIC) + _SHAPE.size
        self.header = _MAGIC + _SHAPE.pack(count, *form.shape) + bytes(_END * count)

    def pack(self, image: Pixels) -> bytes:
        """The image (H, W, 1 or 3) as a JPEG."""
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.shape[2] == 3 else image
        full_colour = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, full_colour]
        done, data = cv2.imencode(".jpg", bgr, options)
        assert done, image.shape
        return data.tobytes()

    def end_of(self, stream: BinaryIO, rows: int) -> int:
        """As the table of ends tells, in which every end lies behind the one before."""
        place = stream.tell()
        stream.seek(self._table)
        ends = np.frombuffer(stream.read(_END * rows), "<u8")
        stream.seek(place)
        if len(ends) != rows or not (np.diff(ends, prepend=np.zeros(1, ends.dtype)).view("<i8") > 0).all():
            raise ValueError(f"expected {rows} ends that grow")
        return len(self.header) + self._end(stream, rows)

    def note(self, stream: BinaryIO, start: int, lengths: Sequence[int]) -> None:
        """Write the ends of these rows into the table."""
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


PACKINGS: dict[CacheFormat, type[RawPacking] | type[JpegPacking]] = {"raw": RawPacking, "jpeg": JpegPacking}


def row_bytes(form: ImageForm) -> int:
    """What an image takes in a file of raw pixels."""
    return _SIZE_BYTES + math.prod(form.shape)


def open_pixels(file: Path) -> RowMap:
    """Map a finished file of raw pixels read-only: (N,), with the fields `size` (2,) and `pixels` (H, W, C)."""
    rows = np.load(file, mmap_mode="r")
    assert isinstance(rows, np.memmap), file
    assert rows.dtype == np.dtype(_row_fields(rows.dtype["pixels"].shape)), file
    return rows


def _row_fields(shape: tuple[int, ...]) -> list[tuple[str, str, tuple[int, ...]]]:
    return [("size", "<u4", (2,)), ("pixels", "|u1", shape)]


def open_jpegs(file: Path) -> tuple[tuple[int, int, int], NDArray[np.uint64], ImageMap]:
    """Map a finished file of JPEGs read-only: (H, W, C), the ends (N,), and all their bytes in one."""
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
