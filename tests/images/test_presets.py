"""Presets run, keep size and type, and equal their lists."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.images.augmentation.augment import build_augmentation
from pipeline.images.augmentation.presets import PRESETS, preset


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_equals_its_list(name: str) -> None:
    size = (40, 48)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    by_name = build_augmentation(name, size=size, channels=3)
    spelled = build_augmentation(preset(name, size=size), size=size, channels=3)
    keys = [(0, 0, str(number)) for number in range(6)]
    for key in keys:
        np.testing.assert_array_equal(by_name(image, key=key), spelled(image, key=key))
    assert len({by_name(image, key=key).tobytes() for key in keys}) > 3


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_takes_grey_images(name: str) -> None:
    build_augmentation(name, size=(32, 32), channels=1)
