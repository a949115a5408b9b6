"""Two hundred damaged image files: an `ImageError` or an image of the right shape, never anything else."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ImageError
from pipeline.images.check import check_images
from pipeline.images.decoding.decode import load_image
from pipeline.images.geometry import ImageForm

COUNT = 200
KINDS: dict[str, dict[str, Any]] = {"JPEG": {}, "PNG": {}, "WEBP": {}, "TIFF": {}, "GIF": {}, "BMP": {}}
HEADS = (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0", b"MM\0*", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"BM")
FORMS = (
    ImageForm((16, 16), "stretch", 3),
    ImageForm((12, 20), "pad", 1),
    ImageForm((12, 20), "crop", 4),
    ImageForm((16, 16), "stretch", 3, window=(0.0, 300.0), alpha=(255, 255, 255)),
    ImageForm((16, 16), "stretch", 5),
)


def bits_flipped(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 40)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def header_flipped(data: bytes, chance: random.Random) -> bytes:
    return bits_flipped(data[:60], chance) + data[60:]


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def head_swapped(data: bytes, chance: random.Random) -> bytes:
    head = chance.choice(HEADS)
    return head + data[len(head) :]


def zeroed(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    length = chance.randint(1, 400)
    return data[:start] + b"\0" * len(data[start : start + length]) + data[start + length :]


def text(data: bytes, chance: random.Random) -> bytes:
    return chance.choice((b"<html><body>404 Not Found</body></html>", b"id,label\n1,0\n", b"\0" * 500, b"\xff" * 99))


def spliced(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + chance.randbytes(chance.randint(1, 99)) + data[place:]


DAMAGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    bits_flipped, header_flipped, cut, head_swapped, zeroed, text, spliced,
)  # fmt: skip


def damaged_files(folder: Path) -> list[Path]:
    chance = random.Random(20)
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 4), np.uint8)
    wholes = []
    for kind, mode in [(kind, mode) for kind in KINDS for mode in ("RGB", "L", "RGBA")]:
        stream = io.BytesIO()
        try:
            Image.fromarray(noise).convert(mode).save(stream, kind)
        except OSError:
            continue  # this kind has no alpha
        wholes.append((kind.lower(), stream.getvalue()))
    paths = []
    for number in range(COUNT):
        kind, data = chance.choice(wholes)
        ending = chance.choice((kind, "jpg", "png", "txt"))
        paths.append(folder / f"{number}.{ending}")
        paths[-1].write_bytes(DAMAGES[number % len(DAMAGES)](data, chance))
    return paths


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_file_is_refused_or_gives_the_right_shape(tmp_path: Path, form: ImageForm) -> None:
    """Warnings are errors here, as in all tests."""
    paths = damaged_files(tmp_path)
    begin = time.perf_counter()
    refused = 0
    for path in paths:
        try:
            image = load_image((path,), form)
        except ImageError as error:
            assert str(path) in error.problem  # noqa: PT017
            refused += 1
        else:
            assert image.shape == form.shape
            assert image.dtype == np.uint8
    assert refused >= COUNT // 3
    assert time.perf_counter() - begin < 60


def test_the_check_before_a_run_survives_damaged_files(tmp_path: Path) -> None:
    paths = [(path,) for path in damaged_files(tmp_path)]
    quick = check_images(paths, FORMS[0], threads=2)
    thorough = check_images(paths, FORMS[0], threads=2, decode=True)
    assert len(quick) == len(thorough) == COUNT
    # decoding finds all that the quick check finds; not the other way round
    assert all(deep is not None for found, deep in zip(quick, thorough, strict=True) if found is not None)
    assert sum(found is not None for found in quick) > COUNT // 4
