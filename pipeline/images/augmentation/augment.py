"""Augmentation by albumentations; the same key always gives the same pixels."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.images.augmentation.albumentations_adapter import Spec, compose, is_composition, one_line, split
from pipeline.images.augmentation.presets import preset
from pipeline.images.geometry import Pixels, Size
from pipeline.seeds import stable_seed

_TRIALS = 4


class Augmentation:
    """Random changes of an image that depend on the image and a key alone, in any process, order and run.

    Attributes:
        specs: the transforms, as in the config.
        shape: (H, W, C) of the augmented images.
        takes: (H', W', C) of the images to augment.

    Args:
        specs: as for `build_augmentation`, which also tries the augmentation and is the function to call.
        size: (H, W).
        channels: C.
        source_size: (H', W'); None: as size.

    Raises:
        ConfigError: an unknown name, a wrong argument or value.
    """

    def __init__(self, specs: Sequence[Spec], *, size: Size, channels: int, source_size: Size | None = None) -> None:
        self.specs, self.shape, self.takes = tuple(specs), (*size, channels), (*(source_size or size), channels)
        self._compose = compose(self.specs, frame=self.takes[:2])

    def __call__(self, image: Pixels, *, key: tuple[int, int, str]) -> Pixels:
        """Augment (H', W', C) uint8 as a function of `image` and `key`, which is (seed, epoch, id).

        Raises:
            ConfigError: the result is not uint8 of `shape`, by a rare branch that no trial met.
        """
        _seed(self._compose, key)
        augmented: Pixels = self._compose(image=image)["image"]
        _require_kind(augmented, self.shape, "a transform")
        return augmented

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the specs only: the transforms have no state that another process needs."""
        return (_rebuild, (self.specs, self.shape, self.takes))

    def try_out(self) -> None:
        """Run a few times on noise: as configured, and with every transform applied.

        Raises:
            ConfigError: a transform fails, or the result is not uint8 of the given size and channels.
        """
        image = np.random.Generator(np.random.PCG64(0)).integers(0, 256, self.takes, np.uint8)
        names = [next(iter(spec)) for spec in self.specs]
        certain = compose(self.specs, frame=self.takes[:2])
        _make_certain(certain)
        for trial in range(_TRIALS):
            _try(self._compose, names, image, self.shape, key=(0, trial, "trial"))
            _try(certain, names, image, self.shape, key=(0, trial, "trial"))


def build_augmentation(
    specs: Sequence[Spec] | str, *, size: Size, channels: int, source_size: Size | None = None
) -> Augmentation:
    """The augmentation of `specs`, from images of `source_size` (None: of `size`) to `size`; it is tried out here.

    A string is the name of a list in `pipeline.images.augmentation.presets`.

    Each spec is `{Name: {argument: value, ...}}` or `{Name: None}`. `OneOf`, `SomeOf`, `RandomOrder`,
    `OneOrOther`, `Sequential` and `SelectiveChannelTransform` hold further specs in their `transforms`.

    Raises:
        ConfigError: an unknown name, a wrong argument or value, a transform that fails, or a result that is
            not uint8 of the given size and channels.
    """
    described = preset(specs, size=size) if isinstance(specs, str) else specs
    augmentation = Augmentation(described, size=size, channels=channels, source_size=source_size)
    augmentation.try_out()
    return augmentation


def begins_with_crop(specs: Sequence[Spec] | str, *, size: Size) -> bool:
    """Whether the first transform always is a RandomResizedCrop to `size` (H, W).

    It cuts a share of the image, whatever its size; RandomCrop and RandomSizedCrop count in pixels, and would cut a
    smaller share from a larger image.

    Raises:
        ConfigError: the first transform is not one name with its arguments.
    """
    described = preset(specs, size=size) if isinstance(specs, str) else specs
    name, arguments = split(described[0]) if described else ("", {})
    certain = arguments.get("p", 1.0) == 1.0
    return name == "RandomResizedCrop" and certain and arguments.get("size") in (list(size), tuple(size))


def _rebuild(specs: Sequence[Spec], shape: tuple[int, int, int], takes: tuple[int, int, int]) -> Augmentation:
    return Augmentation(specs, size=shape[:2], channels=shape[2], source_size=takes[:2])


def _seed(compose: Any, key: tuple[int, int, str]) -> None:
    """Make the next call of `compose` a function of `key` and the image alone.

    Both generators reach every nested transform, and albumentations seeds OpenCV's generator from them before it
    draws there. It uses no global generator and keeps no state between calls.
    """
    seed = stable_seed("augmentation", *key)
    compose.set_random_state(np.random.Generator(np.random.PCG64(seed)), random.Random(seed))  # noqa: S311


def _make_certain(transform: Any) -> None:
    """Set every probability in `transform` to 1, except those of 0."""
    transform.p = 1.0 if transform.p > 0 else 0.0
    if is_composition(transform):
        for nested in transform.transforms:
            _make_certain(nested)


def _try(
    compose: Any, names: Sequence[str], image: Pixels, shape: tuple[int, int, int], *, key: tuple[int, int, str]
) -> None:
    """Run the top-level transforms in order, so that an error can name the one at fault."""
    _seed(compose, key)
    augmented, culprit = image.copy(), ""
    for name, transform in zip(names, compose, strict=True):
        before = _kind(augmented)
        try:
            augmented = transform(image=augmented)["image"]
        except Exception as error:  # third-party code on arguments that it accepted
            raise ConfigError(
                f"augmentation {name} fails on an image of {_kind(image)}",
                got=one_line(error),
                remedy="correct its arguments, or take it out of the augmentations",
            ) from error
        culprit = name if _kind(augmented) != before else culprit
    _require_kind(augmented, shape, culprit)


def _kind(image: Any) -> str:
    return f"{image.dtype} {'x'.join(str(length) for length in image.shape)}"


def _require_kind(augmented: Any, shape: tuple[int, int, int], culprit: str) -> None:
    if type(augmented) is np.ndarray and augmented.dtype == np.uint8 and augmented.shape == shape:
        return
    raise ConfigError(
        f"augmentation {culprit} changes the kind or size of the image",
        expected=f"uint8 {'x'.join(map(str, shape))}: normalisation and tensors come later, on the device",
        got=_kind(augmented),
        remedy="take Normalize, ToTensorV2 and the like out; let crops resize to the training size",
    )
