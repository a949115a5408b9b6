"""The search for better training settings: its section of the config, and the dotted keys that it may vary.

These are training keys that change how a fold is trained, but not the folds themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from pipeline.config.images import ImagesConfig
from pipeline.config.section import After, Finite, Positive, PositiveInt, Section, Seed
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
    "train.select": "every trial is scored after its last epoch",
    "train.seed": "the best seed would be the luckiest one",
    "train.precision": "there is one for the whole process",
}


class Dimension(Section):
    """The values of one key in a search: a range from low to high, or choices.

    Choices are a list, or a mapping from a name to a value where the values are lists or sections.
    """

    low: Finite | None = None
    high: Finite | None = None
    log: bool = False
    step: Positive | None = None
    choices: list[Any] | dict[str, Any] | None = None

    @property
    def each_choice(self) -> list[Any]:
        """The choices without their names; empty for a range."""
        return [*(self.choices.values() if isinstance(self.choices, dict) else self.choices or ())]

    @model_validator(mode="before")
    @classmethod
    def _is_a_mapping(cls, given: Any) -> Any:
        if not isinstance(given, Mapping | Dimension):
            raise ValueError("write a range as {low: 1, high: 4}, or values as {choices: [1, 4]}")  # noqa: TRY004
        return given

    @model_validator(mode="after")
    def _range_or_choices(self) -> Self:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("give either low and high, or choices")
        if self.choices is not None:
            if not self.choices or self.model_fields_set - {"choices"}:
                raise ValueError("choices need at least one value, and neither low, high, log nor step")
            return self
        assert self.low is not None and self.high is not None  # noqa: PT018 (checked above)
        if self.low >= self.high:
            raise ValueError(f"low must lie below high, got {self.low} and {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a log range needs low above 0 and no step")
        return self

    @model_serializer(mode="wrap")
    def _only_what_is_set(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in plain(self).items() if value is not None and value is not False}


class SearchConfig(Section):
    """An Optuna study over other training keys."""

    trials: Annotated[int, Field(gt=0, le=1_000_000)] = 30
    timeout: Positive | None = None
    space: Annotated[dict[str, Dimension], Field(min_length=1)] = {
        "loss.gamma_neg": Dimension(low=0, high=6),
        "loss.gamma_pos": Dimension(low=0, high=2),
        "loss.clip": Dimension(low=0, high=0.2),
    }
    share: Literal["all", "bucket", "label"] = "all"
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["median", "hyperband", "wilcoxon", "none"] = "median"
    judge: Literal["auto", "map", "metric"] = "auto"
    folds: Annotated[list[int], Field(min_length=1, max_length=1000)] = [0]
    epochs: PositiveInt | None = None
    proxy: Literal["none", "head"] = "none"
    storage: str | None = None
    then: Literal["cv", "stop"] = "cv"
    seed: Seed = 0


def searchable_keys() -> dict[str, Any]:
    """{dotted key: type} of all keys that a search may vary; a whole section is a key, too."""
    keys: dict[str, Any] = dict(_SECTIONS)
    for name, section in _SECTIONS.items():
        for field, info in section.model_fields.items():
            if After not in info.metadata and f"{name}.{field}" not in _KEPT:
                keys[f"{name}.{field}"] = info.annotation
    return keys


def full_key(name: str) -> str:
    """The dotted key for `name`: itself, or the only key that ends with it, such as `train.lr` for `lr`.

    Raises:
        ValueError: there is no such key, there are several, or a search may not vary it.
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
    """The keys of a section that no trial may change: after keys, and those that a search may not vary."""
    fields = _SECTIONS[section].model_fields
    return {name for name in fields if f"{section}.{name}" not in searchable_keys()}


def refuse_kept(key: str, choices: Iterable[Any]) -> None:
    """Raise ValueError if `choices` of a whole section set a key that a search may not vary; names the first one."""
    for choice in choices if key in _SECTIONS else ():
        for name in kept_keys(key) & {*(choice if isinstance(choice, Mapping) else ())}:
            full_key(f"{key}.{name}")


def is_integer(key: str) -> bool:
    """Whether the numbers of this key are whole numbers."""
    kinds = set(_leaves(searchable_keys()[key]))
    return int in kinds and float not in kinds


def _leaves(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _leaves(part)
