"""Half of an image is never taken for a whole one, and size is known before memory is taken."""

from __future__ import annotations

import io
import itertools
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from pipeline.errors import ImageError
from pipeline.images.check import check_images
from pipeline.images.decoding.decode import read_image
from pipeline.images.decoding.jpeg import END, decode_jpeg
from pipeline.images.geometry import ImageForm, Reading
from pipeline.images.image_stats import read_image_stats

RGB = Reading(3)
KINDS: dict[str, dict[str, Any]] = {
    "baseline": {"quality": 85},
    "progressive": {"quality": 85, "progressive": True},
    "restarts": {"quality": 85, "restart_marker_blocks": 4},
}


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (180, 250, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(cv2.GaussianBlur(noise, (9, 9), 2)).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_that_was_cut_and_closed_again_is_refused(tmp_path: Path, kind: str) -> None:
    whole, chance, path = jpeg(**KINDS[kind]), random.Random(0), tmp_path / "image.jpg"
    scan = whole.rindex(b"\xff\xda") + 20
    for _ in range(30):
        path.write_bytes(whole[: chance.randrange(scan, len(whole) - 20)] + END)
        with pytest.raises(ImageError, match="damaged JPEG"):
            read_image((path,), RGB)
        assert read_image_stats([(path,)], RGB, threads=1)[0].problem is not None


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_pixels_equal_those_of_opencv(mode: str) -> None:
    for options, sampling, scale, grey in itertools.product(KINDS.values(), (0, 1, 2), (1, 2, 4, 8), (True, False)):
        data = jpeg(mode, subsampling=sampling, **options) if mode == "RGB" else jpeg(mode, **options)
        pixels = decode_jpeg(data, grey=grey, scale=scale)
        if mode == "CMYK":
            assert pixels is None
            continue
        flag = (
            f"IMREAD_REDUCED_{'GRAYSCALE' if grey else 'COLOR'}_{scale}"
            if scale > 1
            else f"IMREAD_{'GRAYSCALE' if grey else 'COLOR'}"
        )
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), getattr(cv2, flag))
        assert expected is not None
        assert pixels is not None
        np.testing.assert_array_equal(pixels.squeeze(), expected if grey else expected[:, :, ::-1])


def test_bytes_behind_the_last_pixel_are_no_damage(tmp_path: Path) -> None:
    whole, path = jpeg(), tmp_path / "image.jpg"
    path.write_bytes(whole[:-2] + b"\0\0\0" + END)
    assert read_image((path,), RGB).shape == (180, 250, 3)


def test_a_missing_end_is_accepted_on_demand_and_missing_pixels_never(tmp_path: Path) -> None:
    whole, path, accepting = jpeg(), tmp_path / "image.jpg", RGB._replace(without_end=True)
    path.write_bytes(whole)
    expected = read_image((path,), RGB)
    path.write_bytes(whole[:-2])
    with pytest.raises(ImageError, match="truncated"):
        read_image((path,), RGB)
    np.testing.assert_array_equal(read_image((path,), accepting), expected)
    path.write_bytes(whole[:-200])
    with pytest.raises(ImageError, match="damaged JPEG"):
        read_image((path,), accepting)


def _png(width: int, height: int) -> bytes:
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(9))),
        (b"IEND", b""),
    )
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _huge_jpeg() -> bytes:
    data = bytearray(jpeg("L"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 65_500, 65_500)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        _png(50_000, 50_000),
        _huge_jpeg(),
        b"P6 60000 60000 255\n",
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 60, 0, 54, 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0),
    ],
)
def test_too_many_pixels_are_refused_by_the_header(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "image"
    path.write_bytes(data)
    with pytest.raises(ImageError, match="at most 200,000,000 pixels"):
        read_image((path,), RGB)
    assert read_image_stats([(path,)], RGB, threads=1)[0].problem is not None
    assert check_images([(path,)], ImageForm((8, 8), "stretch", 3), threads=1) != [None]


def test_the_limit_is_a_setting(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg())
    with pytest.raises(ImageError, match=r"images\.max_pixels"):
        read_image((path,), RGB._replace(max_pixels=44_999))
    assert read_image((path,), RGB._replace(max_pixels=45_000)).shape == (180, 250, 3)


LAYOUTS: tuple[dict[str, Any], ...] = ({"rowsperstrip": 50}, {"tile": (64, 64)})


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", ["lzw", "jpeg"])
def test_damage_in_a_part_of_a_tiff_is_refused_or_changes_hardly_a_pixel(
    tmp_path: Path, compression: str, layout: dict[str, Any], planar: str
) -> None:
    path, chance = tmp_path / "image.tif", random.Random(0)
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (180, 250, 3), np.uint8), (9, 9), 2)
    bands = image if planar == "contig" else np.moveaxis(image, 2, 0)
    tifffile.imwrite(path, bands, photometric="rgb", planarconfig=planar, compression=compression, **layout)
    whole, expected = path.read_bytes(), read_image((path,), RGB).astype(int)
    with tifffile.TiffFile(path) as file:
        parts = list(zip(file.pages[0].dataoffsets, file.pages[0].databytecounts, strict=True))
    refused = 0
    for start, size in chance.choices(parts, k=30):
        data, place = bytearray(whole), start + chance.randrange(size // 2, size - 20)
        if compression == "lzw":
            data[place] ^= 1 << chance.randrange(8)
        else:
            data[place : start + size - 2] = bytes(start + size - 2 - place)
        path.write_bytes(data)
        try:
            assert np.abs(read_image((path,), RGB) - expected).mean() < 0.5
        except ImageError:
            refused += 1
    assert refused > 5
