from __future__ import annotations

import pickle
import random
import sys
import warnings
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.images.augmentation.albumentations_adapter import TRANSFORMS, Spec
from pipeline.images.augmentation.augment import Augmentation, _seed, build_augmentation
from pipeline.images.geometry import Pixels

SIZE = (32, 32)
NESTED: list[Spec] = [
    {"HorizontalFlip": {"p": 0.5}},
    {
        "OneOf": {
            "transforms": [
                {"SomeOf": {"transforms": [{"GaussNoise": None}, {"Blur": None}, {"CLAHE": None}], "n": 2}},
                {"Sequential": {"transforms": [{"ElasticTransform": {"p": 0.7}}, {"ISONoise": None}]}},
                {"RandomOrder": {"transforms": [{"RandomGamma": None}, {"Sharpen": None}], "n": 2}},
            ],
            "p": 0.9,
        }
    },
    {"CoarseDropout": {"num_holes_range": [1, 3], "fill": "random", "p": 0.5}},
]


def build(specs: list[Any], channels: int = 3) -> Augmentation:
    return build_augmentation(specs, size=SIZE, channels=channels)


@pytest.fixture
def image() -> Pixels:
    """Read-only: no transform may write into its input."""
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    smooth = np.asarray(cv2.GaussianBlur(noise, (5, 5), 2), np.uint8)
    smooth.setflags(write=False)
    return smooth


def assert_key_decides_all(used: Augmentation, fresh: Augmentation, image: Pixels) -> None:
    """`used` has augmented before, with other global generators, and gets the keys in another order."""
    keys = [(0, epoch, name) for epoch in range(2) for name in ("a", "b")]
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    cv2.setRNGSeed(1)
    expected = [fresh(image, key=key) for key in keys]
    np.random.seed(2)  # noqa: NPY002
    random.seed(2)
    cv2.setRNGSeed(2)
    for name in "xyz":
        used(255 - image, key=(9, 9, name))
    for key, pixels in reversed(list(zip(keys, expected, strict=True))):
        np.testing.assert_array_equal(used(image, key=key), pixels, err_msg=str(used.specs))


CROP: list[Spec] = [{"RandomResizedCrop": {"size": [*SIZE], "scale": [0.3, 1.0], "ratio": [0.5, 2.0]}}]


def test_a_crop_of_an_image_of_the_given_size_is_that_of_albumentations(image: Pixels) -> None:
    import albumentations as A  # after the adapter, which stops its request for updates

    plain = A.Compose([A.RandomResizedCrop(size=SIZE, scale=(0.3, 1.0), ratio=(0.5, 2.0))])
    cropping = build(CROP)
    for epoch in range(20):
        _seed(plain, (0, epoch, "a"))
        np.testing.assert_array_equal(cropping(image, key=(0, epoch, "a")), plain(image=image)["image"])


@pytest.mark.parametrize("own", [(24, 80), (80, 24), (1, 300), (17, 31)])
def test_a_crop_cuts_the_same_part_of_an_image_of_another_size(own: tuple[int, int]) -> None:
    """The values of a pixel are its own position, from 0 to 240 down and to the right."""
    frame = (64, 64)
    cropping = build_augmentation(CROP, size=SIZE, channels=3, source_size=frame)
    for epoch in range(20):
        corners: list[NDArray[np.int64]] = []
        for height, width in (frame, own):
            down, right = np.meshgrid(np.linspace(0, 240, height), np.linspace(0, 240, width), indexing="ij")
            places = np.stack([down, right, right], axis=2).round().astype(np.uint8)
            cut = cropping(places, key=(0, epoch, "a")).astype(int)
            corners.append(np.concatenate([cut[0, 0, :2], cut[-1, -1, :2]]))
        one_pixel = 240 / np.array([*own, *own]) + 240 / 64 + 4
        assert (np.abs(corners[0] - corners[1]) <= one_pixel).all(), (epoch, corners)


def test_nested_pipelines_are_a_function_of_the_key(image: Pixels) -> None:
    assert_key_decides_all(build(NESTED), build(NESTED), image)


def test_every_transform_is_a_function_of_the_key(image: Pixels) -> None:
    tried = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "X is a special case of Y"
        for name in sorted(TRANSFORMS):
            try:
                used = build([{name: {"p": 1.0}}])
            except ConfigError:
                continue  # needs arguments, or is not for plain images
            assert_key_decides_all(used, Augmentation([{name: {"p": 1.0}}], size=SIZE, channels=3), image)
            tried.append(name)
    assert len(tried) > 70


def test_each_part_of_the_key_matters(image: Pixels) -> None:
    noise = build([{"GaussNoise": {"p": 1.0}}])
    keys = [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b")]
    assert len({noise(image, key=key).tobytes() for key in keys}) == 4


def test_probabilities_hold_over_the_ids(image: Pixels) -> None:
    flip = build([{"HorizontalFlip": {"p": 0.25}}])
    changed = sum(not np.array_equal(flip(image, key=(0, 0, str(name))), image) for name in range(400))
    assert 70 <= changed <= 130  # 100 expected; 3.5 standard deviations


def test_the_global_generators_are_left_alone(image: Pixels) -> None:
    augmentation = build(NESTED)
    before = random.getstate(), np.random.get_state()[1].tobytes()  # type: ignore[index]  # noqa: NPY002
    augmentation(image, key=(0, 0, "a"))
    after = random.getstate(), np.random.get_state()[1].tobytes()  # type: ignore[index]  # noqa: NPY002
    assert before == after


def test_a_copy_sent_to_another_process_gives_the_same_pixels(image: Pixels) -> None:
    original = build(NESTED)
    original(image, key=(3, 3, "past"))
    payload = pickle.dumps(original)
    assert len(payload) < 2000
    assert_key_decides_all(pickle.loads(payload), original, image)


def test_no_augmentation_changes_nothing(image: Pixels) -> None:
    np.testing.assert_array_equal(build([])(image, key=(0, 0, "a")), image)


def test_grey_images_stay_three_dimensional() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (*SIZE, 1), np.uint8)
    augmented = build([{"Rotate": {"p": 1.0}}, {"Blur": {"p": 1.0}}], channels=1)(grey, key=(0, 0, "a"))
    assert augmented.shape == (*SIZE, 1)


def test_lists_from_yaml_are_taken_as_tuples_and_crops_may_keep_the_size(image: Pixels) -> None:
    specs: list[Spec] = [
        {"RandomResizedCrop": {"size": [32, 32], "scale": [0.5, 1.0], "p": 1.0}},
        {"Affine": {"scale": [0.9, 1.1], "translate_percent": {"x": [-0.1, 0.1], "y": [0, 0.1]}}},
        {"RandomBrightnessContrast": {"brightness_limit": [-0.2, 0.2]}},
        {"ColorJitter": {"hue": [-0.1, 0.1]}},
        {"RandomCrop": {"height": 20, "width": 20}},
        {"Resize": {"height": 32, "width": 32}},
    ]
    assert build(specs)(image, key=(0, 0, "a")).shape == image.shape


@pytest.mark.filterwarnings("ignore")  # a warning is albumentations' own answer to an unknown argument
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"HorizontalFlp": None}, r"unknown augmentation 'HorizontalFlp'; did you mean 'HorizontalFlip'"),
        ({"BasicTransform": None}, "unknown augmentation"),
        ({"Rotate": {"limits": 3}}, r"wrong arguments for augmentation Rotate\n.*limit, interpolation"),
        ({"MedianBlur": {"limits": 3}}, "wrong arguments for augmentation MedianBlur"),
        ({"Rotate": {"limit": "far"}}, "wrong arguments for augmentation Rotate"),
        ({"HorizontalFlip": {"p": 2}}, "wrong arguments for augmentation HorizontalFlip"),
        ({"OneOf": {"transforms": [{"Blur": {"limits": 3}}]}}, "wrong arguments for augmentation Blur"),
        ({"OneOf": {"transforms": [{"Blur": None}], "p": 2}}, "wrong arguments for augmentation OneOf"),
        ({"OneOf": {"p": 0.5}}, "wrong arguments for augmentation OneOf"),
        ({"OneOf": {"transforms": [{"Blur": {"p": 0}}]}}, "wrong arguments for augmentation OneOf"),
        ({"Normalize": {"p": 0.001}}, r"Normalize changes the kind(.|\n)*got: +float32 32x32x3"),
        ({"ToTensorV2": None}, r"ToTensorV2 changes the kind(.|\n)*got: +torch.uint8 3x32x32"),
        ({"RandomCrop": {"height": 16, "width": 16}}, r"RandomCrop changes the kind(.|\n)*got: +uint8 16x16x3"),
        ({"FDA": None}, "augmentation FDA fails"),
        ("HorizontalFlip", "one name with its arguments"),
        ({"HorizontalFlip": None, "VerticalFlip": None}, "one name with its arguments"),
        ({"HorizontalFlip": 0.5}, "one name with its arguments"),
    ],
)
def test_a_wrong_config_is_refused_by_name(spec: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build([{"VerticalFlip": None}, spec])


def test_a_transform_that_cannot_take_the_channels_is_refused() -> None:
    with pytest.raises(ConfigError, match="augmentation HEStain fails on an image of uint8 32x32x1"):
        build([{"HEStain": None}], channels=1)


def test_a_wrong_output_that_no_trial_met_is_refused_later(image: Pixels) -> None:
    untried = Augmentation([{"ToFloat": {"p": 1.0}}], size=SIZE, channels=3)
    with pytest.raises(ConfigError, match="changes the kind"):
        untried(image, key=(0, 0, "a"))


def test_albumentations_did_not_ask_the_network_for_updates() -> None:
    assert sys.modules["albumentations.check_version"].opener is None  # made by the first request
