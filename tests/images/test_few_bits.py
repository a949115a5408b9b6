"""Files of 16 bits that use only 10, 12 or 14 of them are found, and the window of the remedy helps."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from pipeline.images.decoding.decode import read_image
from pipeline.images.geometry import Reading
from pipeline.images.image_stats import few_bits, largest_samples, read_image_stats


def _write(path: Path, bits: int, bands: int) -> tuple[Path, ...]:
    shape = (40, 40) if bands == 1 else (40, 40, bands)
    pixels = np.random.default_rng(0).integers(0, 1 << bits, shape).astype(np.uint16)
    if bands == 4:
        pixels[:, :, 3] = 65535
    assert cv2.imwrite(str(path), pixels)
    return (path,)


@pytest.mark.parametrize(("name", "bands"), [("a.png", 1), ("a.png", 3), ("a.png", 4), ("a.tif", 1), ("a.tif", 3)])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_the_window_is_found(tmp_path: Path, name: str, bands: int, bits: int) -> None:
    paths = _write(tmp_path / name, bits, bands)
    channels = 1 if bands == 1 else 3
    (stats,) = read_image_stats([paths], Reading(channels, None, None), threads=1)
    assert stats.largest == largest_samples([paths])[0]
    lost = few_bits([stats.largest], None)
    assert lost is not None
    window = yaml.safe_load(lost[1].removeprefix("set images.window: "))
    assert window == [0, (1 << bits) - 1]
    assert len(np.unique(read_image(paths, Reading(channels=channels)))) <= (1 << (bits - 8)) + 1
    assert len(np.unique(read_image(paths, Reading(channels=channels, window=tuple(window))))) > 200
    assert few_bits([stats.largest], window) is None


@pytest.mark.parametrize(("bits", "name"), [(16, "a.png"), (8, "a.png"), (16, "a.tif")])
def test_full_images_are_not_doubted(tmp_path: Path, bits: int, name: str) -> None:
    paths = _write(tmp_path / name, bits, 1)
    if bits == 8:
        assert cv2.imwrite(str(paths[0]), np.full((40, 40, 3), 9, np.uint8))
    assert few_bits(largest_samples([paths]), None) is None
    assert largest_samples([(tmp_path / "absent.png",)]) == [0]


def test_dark_images_get_the_window_of_a_usual_sensor() -> None:
    windows = [lost[1] for most in (200, 300, 1500, 4095, 9000) if (lost := few_bits([0, most], None))]
    assert [text.split(", ")[1] for text in windows] == ["255]", "1023]", "4095]", "4095]", "16383]"]


def test_the_files_of_channels_count_together(tmp_path: Path) -> None:
    paths = (*_write(tmp_path / "r.png", 10, 1), *_write(tmp_path / "g.png", 12, 1))
    assert 1023 < largest_samples([paths])[0] < 4096
