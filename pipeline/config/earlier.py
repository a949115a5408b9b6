"""What a run's config.yaml means that was written before some key existed: what runs did then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CROPPING = ("light", "heavy")  # ready lists that begin with a RandomResizedCrop


def as_it_was_meant(data: Any) -> Any:
    """`data` with a value for each training key that it lacks and whose default is not what runs did before it.

    `images.cache_size`: a RandomResizedCrop cut from images of the training size. Without such a crop the key does
    nothing, and the default stands for it. What is no mapping of sections is left to the schema's check.
    """
    if not isinstance(data, Mapping):
        return data
    images, augment = data.get("images"), data.get("augment")
    if not isinstance(images, Mapping) or "cache_size" in images or not isinstance(augment, Mapping):
        return data
    if not crops_first(augment.get("train")):
        return data
    return {**data, "images": {**images, "cache_size": 1.0}}


def crops_first(train: Any) -> bool:
    """Whether this `augment.train` begins with a RandomResizedCrop, by its name alone."""
    if isinstance(train, list):
        return bool(train) and isinstance(train[0], Mapping) and "RandomResizedCrop" in train[0]
    return train in _CROPPING
