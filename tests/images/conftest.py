from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.competition.paths import ImagePaths
from pipeline.images.caching.cache import ImageCache
from pipeline.images.caching.cache_format import CacheFormat
from pipeline.images.geometry import ImageForm, Pixels


@pytest.fixture
def picture() -> Pixels:
    """A smooth RGB picture (37, 53, 3) whose corners, channels and halves all differ."""
    y, x = np.mgrid[:37, :53]
    channels = [40 + 4 * x, 230 - 5 * y, 60 + 2 * x + 2 * y]
    return np.stack(channels, axis=2).astype(np.uint8)


@pytest.fixture
def write_images(tmp_path: Path) -> Callable[[int], list[ImagePaths]]:
    """Writes a number of different noisy PNG files of (20, 24); returns the paths of each image."""

    def write(count: int) -> list[ImagePaths]:
        paths = [tmp_path / "images" / f"{index}.png" for index in range(count)]
        (tmp_path / "images").mkdir(exist_ok=True)
        for index, path in enumerate(paths):
            pixels = np.random.default_rng(index).integers(0, 256, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(path)
        return [(path,) for path in paths]

    return write


def exif_orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


def interrupt(cache: ImageCache, *forms: ImageForm, kept_as: CacheFormat, at: int) -> None:
    """Press Ctrl-C after image number `at`."""

    def progress(done: int) -> None:
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.open(forms, kept_as=kept_as, threads=1, progress=progress)
