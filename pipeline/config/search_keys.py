"""Dotted names of the keys that a search may vary: training keys that shape how the same folds are trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from pipeline.config.images import ImagesConfig
from pipeline.config.section import After, Section
from pipeline.config.training import AugmentConfig, LossConfig, ModelConfig, TrainConfig
from pipeline.errors import listing, nearest

_SECTIONS: dict[str, type[Section]] = {
    "augment": AugmentConfig,
    "images": ImagesConfig,
    "model": ModelConfig,
    "loss": LossConfig,
    "train": TrainConfig,
}
_KEPT = {
    "train.epochs": "set search.epochs",
    "train.select": "every trial is judged after its last epoch",
    "train.seed": "a seed is not chosen by its luck",
    "train.precision": "it is one for the whole process",
}


def searchable_keys() -> dict[str, Any]:
    """Each dotted key that may be searched, with its type; a whole section is a key, too."""
    keys: dict[str, Any] = dict(_SECTIONS)
    for name, section in _SECTIONS.items():
        for field, info in section.model_fields.items():
            if After not in info.metadata and f"{name}.{field}" not in _KEPT:
                keys[f"{name}.{field}"] = info.annotation
    return keys


def full_key(name: str) -> str:
    """The dotted key that `name` means: itself, or the one key of that last part, as `lr` is `train.lr`.

    Raises:
        ValueError: there is no such key, several, or one that a search may not vary.
    """
    keys = searchable_keys()
    found = [key for key in keys if key == name] or [key for key in keys if key.endswith(f".{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"'{name}' may be {listing(found)}: write the section, too")
    if name in _KEPT:
        raise ValueError(f"'{name}' is not searched: {_KEPT[name]}")
    raise ValueError(f"'{name}' is no training key of {listing(_SECTIONS)}{nearest(name, keys)}")


def kept_keys(section: str) -> set[str]:
    """The keys of a section that no trial changes: those a search may not vary, and after keys."""
    fields = _SECTIONS[section].model_fields
    return {name for name in fields if f"{section}.{name}" not in searchable_keys()}


def refuse_kept(key: str, choices: Iterable[Any]) -> None:
    """ImageStats into the `choices` of a whole section for keys that a search may not vary.

    Raises:
        ValueError: naming the first one.
    """
    for choice in choices if key in _SECTIONS else ():
        for name in kept_keys(key) & {*(choice if isinstance(choice, Mapping) else ())}:
            full_key(f"{key}.{name}")


def is_integer(key: str) -> bool:
    """Whether the key's numbers are whole numbers."""
    kinds = set(_leaves(searchable_keys()[key]))
    return int in kinds and float not in kinds


def _leaves(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _leaves(part)
