"""Near pairs: copies in any size, quality and position are found; similar scenes and flat images are not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.images.near_duplicates import SIMILARITY, near_pairs, similarity_of, thumbnail, turn_thumbnails

Grey = NDArray[np.uint8]


def scene(seed: int, size: int = 200) -> Grey:
    """Rectangles and discs on a gradient; different for each seed."""
    generator = np.random.default_rng(seed)
    image = np.tile(np.linspace(generator.integers(60, 200), generator.integers(60, 200), size), (size, 1)).astype(
        np.uint8
    )
    for _ in range(8):
        x, y, w, h = generator.integers(0, size, 4) // (1, 1, 3, 3)
        cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), int(generator.integers(256)), -1)
        centre = (int(generator.integers(size)), int(generator.integers(size)))
        cv2.circle(image, centre, int(generator.integers(5, 30)), int(generator.integers(256)), -1)
    return image


def saved_again(image: Grey, quality: int = 30, scale: float = 1.0) -> Grey:
    smaller = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    code = cv2.imencode(".jpg", smaller, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_GRAYSCALE), np.uint8)


def _pairs(images: list[Grey], *, turned: bool) -> set[tuple[int, int]]:
    found = near_pairs(np.stack([thumbnail(image) for image in images]), turned=turned)
    assert (found.similarity >= SIMILARITY).all()
    return set(zip(found.first.tolist(), found.second.tolist(), strict=True))


def test_scaled_and_saved_again_copies_are_found() -> None:
    images = [scene(seed) for seed in range(60)]
    copies = [saved_again(image, 30, (0.5, 0.8, 1.6)[seed % 3]) for seed, image in enumerate(images)]
    assert _pairs(images + copies, turned=False) == {(seed, seed + 60) for seed in range(60)}


@pytest.mark.parametrize("turn", range(8))
def test_turned_copies_are_found_with_turned(turn: int) -> None:
    images = [scene(seed) for seed in range(30)]
    turned = [saved_again(np.ascontiguousarray(turn_thumbnails(image[None], turn)[0])) for image in images]
    expected = {(seed, seed + 30) for seed in range(30)}
    assert _pairs(images + turned, turned=True) == expected
    assert _pairs(images + turned, turned=False) == (expected if turn == 0 else set())


def test_images_without_contrast_are_in_no_pair() -> None:
    generator = np.random.default_rng(0)
    seas = [(120 + generator.normal(0, 3, (64, 64))).astype(np.uint8) for _ in range(40)]
    assert _pairs([*seas, seas[0]], turned=True) == set()


def test_two_pictures_of_one_horizon_are_not_near() -> None:
    generator = np.random.default_rng(1)
    horizon = np.linspace(210, 60, 200)[:, None].repeat(200, axis=1)
    two = [(horizon + 12 * generator.standard_normal((20, 20)).repeat(10, 0).repeat(10, 1)) for _ in range(2)]
    first, second = (thumbnail(np.clip(image, 0, 255).astype(np.uint8))[None] for image in two)
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.93
    assert similarity_of(first, second)[0] < 0.5


def test_no_images_and_one_image_have_no_pairs() -> None:
    assert len(near_pairs(np.zeros((0, 32, 32), np.uint8), turned=True).first) == 0
    assert _pairs([scene(0)], turned=True) == set()
