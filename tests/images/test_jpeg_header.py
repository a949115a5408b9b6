from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.images.decoding.decode import jpeg_size
from pipeline.images.decoding.jpeg_header import plain_size
from tests.images.conftest import exif_orientation


def jpeg(height: int = 30, width: int = 50, mode: str = "RGB", **options: Any) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"\xff\xc0 no frame"}, {"dpi": (72, 72)}])
def test_a_plain_header_has_the_size(mode: str, options: dict[str, Any]) -> None:
    assert plain_size(jpeg(30, 500, mode, **options)) == (30, 500)
    assert jpeg_size(jpeg(30, 500, mode, **options)) == (30, 500)


def test_fill_bytes_are_skipped() -> None:
    data = jpeg()
    assert plain_size(data[:2] + b"\xff\xff" + data[2:]) == (30, 50)


@pytest.mark.parametrize(("turned", "size"), [(1, (30, 50)), (6, (50, 30))])
def test_a_header_that_may_turn_the_image_is_left_to_a_library(turned: int, size: tuple[int, int]) -> None:
    data = jpeg(exif=exif_orientation(turned))
    assert plain_size(data) is None
    assert jpeg_size(data) == size
    late = jpeg()
    scan = late.index(b"\xff\xda")
    exif = data[data.index(b"\xff\xe1") :]
    exif = exif[: 2 + int.from_bytes(exif[2:4], "big")]
    assert plain_size(late[:scan] + exif + late[scan:]) is None  # after the size, before the pixels


def test_a_height_that_follows_in_the_pixels_is_left_to_a_library() -> None:
    data = jpeg()
    frame = data.index(b"\xff\xc0")
    assert plain_size(data[: frame + 5] + b"\0\0" + data[frame + 7 :]) is None


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 700), st.binary(max_size=4), st.integers(0, 800))
def test_no_bytes_break_it(place: int, junk: bytes, length: int) -> None:
    data = bytearray(jpeg())
    data[place : place + len(junk)] = junk
    size = plain_size(bytes(data[:length]))
    assert size is None or min(size) > 0
    assert plain_size(junk) is None
