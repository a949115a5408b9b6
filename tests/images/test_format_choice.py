from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.images.caching.cache import ImageCache
from pipeline.images.caching.format_choice import choose_format
from pipeline.images.geometry import ImageForm
from tests.images.conftest import interrupt

FORMS = (ImageForm((80, 80), "stretch", 3), ImageForm((64, 64), "stretch", 3))


class SmallDisk(ImageCache):
    """An image cache on a disk with `free` bytes."""

    free = 0

    def free_bytes(self) -> int:
        return self.free


def make(folder: Path, *, size: int, kind: str = "jpg", channels: int = 3, count: int = 30) -> SmallDisk:
    folder.mkdir()
    small = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    smooth = np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)
    paths = [(folder / f"{number}.{kind}",) for number in range(count)]
    for (path,) in paths:
        Image.fromarray(smooth).save(path)
    return SmallDisk(paths, folder=folder / "cache")


def chosen(cache: ImageCache, asked: Literal["auto", "raw", "jpeg"] = "auto") -> str | None:
    return choose_format(cache, FORMS, asked=asked, share=0.25).kept_as


def test_raw_pixels_where_they_fit_their_share(tmp_path: Path) -> None:
    cache = make(tmp_path / "images", size=300)
    cache.free = 4 * cache.raw_bytes(FORMS)
    assert choose_format(cache, FORMS, asked="auto", share=0.25) == ("raw", None)
    cache.free -= 4
    assert chosen(cache) == "jpeg"
    assert choose_format(cache, FORMS, asked="auto", share=0.5).kept_as == "raw"


def test_jpegs_only_where_they_fit_and_gain_something(tmp_path: Path) -> None:
    cache = make(tmp_path / "large", size=300)
    cache.free = cache.raw_bytes(FORMS)
    kept_as, why = choose_format(cache, FORMS, asked="auto", share=0.25)
    assert kept_as == "jpeg"
    assert "quality 95" in str(why)
    assert chosen(cache, "raw") is None
    cache.free = cache.raw_bytes(FORMS) // 50
    kept_as, why = choose_format(cache, FORMS, asked="auto", share=0.25)
    assert kept_as is None
    assert "decoded anew" in str(why)
    same = make(tmp_path / "same", size=90)
    same.free = same.raw_bytes(FORMS)
    assert chosen(same) is None
    assert chosen(same, "jpeg") == "jpeg"


@pytest.mark.parametrize(("size", "kept_as"), [(90, None), (300, "jpeg")])
def test_small_files_without_loss_gain_nothing_either(tmp_path: Path, size: int, kept_as: str | None) -> None:
    png = make(tmp_path / "png", size=size, kind="png")
    png.free = png.raw_bytes(FORMS)
    assert chosen(png) == kept_as
    assert chosen(png, "jpeg") == "jpeg"


def test_four_channels_have_no_jpegs(tmp_path: Path) -> None:
    cache = make(tmp_path / "images", size=300)
    cache.free = 1000
    forms = [form._replace(channels=4) for form in FORMS]
    assert choose_format(cache, forms, asked="auto", share=0.25).kept_as is None


def test_the_estimate_is_near_what_they_take(tmp_path: Path) -> None:
    cache = make(tmp_path / "images", size=300)
    cache.open(FORMS, kept_as="jpeg", threads=1)
    taken = sum(path.stat().st_size for path in cache.folder.iterdir())
    other = SmallDisk(cache.paths, folder=tmp_path / "elsewhere")
    other.free = round(taken / 0.25 * 1.15)
    assert chosen(other) == "jpeg"
    other.free = round(taken / 0.25 * 0.95)
    assert chosen(other) is None


def test_raw_pixels_that_fit_come_before_existing_jpegs(tmp_path: Path) -> None:
    cache = make(tmp_path / "images", size=300)
    interrupt(cache, *FORMS, kept_as="jpeg", at=1)
    assert chosen(cache) == "jpeg"  # begun, and raw does not fit
    cache.open(FORMS, kept_as="jpeg", threads=1)
    assert chosen(cache) == "jpeg"
    cache.free = 100 * cache.raw_bytes(FORMS)
    assert chosen(cache) == "raw"
    interrupt(cache, *FORMS, kept_as="raw", at=1)
    cache.free = cache.raw_bytes(FORMS)
    assert chosen(cache) == "raw"  # begun, and its rest fits
    cache.open(FORMS, kept_as="raw", threads=1)
    cache.free = 0
    assert chosen(cache) == "raw"


def test_broken_samples_do_not_prevent_the_choice(tmp_path: Path) -> None:
    cache = make(tmp_path / "images", size=300)
    cache.free = cache.raw_bytes(FORMS)
    cache.paths[0][0].write_bytes(b"nothing")
    assert chosen(cache) == "jpeg"
    for (path,) in cache.paths:
        path.write_bytes(b"nothing")
    assert chosen(cache) is None
