"""The search space: parameters of the study, and the config that their values give."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from pipeline.config import Config, Dimension, check_config, full_key, is_integer, kept_keys, training_values
from pipeline.errors import ConfigError, listing

ASL_KEYS = ("loss.gamma_neg", "loss.gamma_pos", "loss.clip")
"""Parameters of the asymmetric loss that may differ per label; `search.share` applies to them."""

HEAD_KEYS = frozenset(
    f"model.{key}"
    for key in (
        "head",
        "hidden_dim",
        "heads",
        "ffn_dim",
        "encoder_layers",
        "decoder_layers",
        "self_attention",
        "pre_norm",
        "pooled_residual",
        "query_groups",
        "query_init",
        "dropout",
    )
)
BUCKETS = ("rare", "middle", "frequent")
_DIGITS = 4  # significant digits of a searched number in a config

Values = Mapping[str, Any]
"""The values of a trial by parameter name, as the study stores them: number, text, true, false or null."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of the study.

    Attributes:
        name: the key, followed by `[bucket]` or `[label]` if several parameters set one key.
        key: the dotted config key.
        labels: the labels whose value it sets; None if it sets the key as a whole.
        dimension: the values it may take.
        integer: whether its values are integers.
    """

    name: str
    key: str
    labels: tuple[str, ...] | None
    dimension: Dimension
    integer: bool

    @property
    def choices(self) -> dict[Any, Any] | None:
        """The config value of each choice by the value that the study stores; None for a range."""
        if self.dimension.choices is None:
            return None
        if isinstance(self.dimension.choices, Mapping):
            return dict(self.dimension.choices)
        plain = (str, int, float, bool, type(None))
        return {each if isinstance(each, plain) else json.dumps(each): each for each in self.dimension.choices}


def parameters_of(config: Config, labels: Sequence[str], positives: Sequence[int]) -> tuple[Parameter, ...]:
    """The parameters of `search.space`; `search.share` may ask for one per bucket or label.

    Args:
        config: the complete configuration.
        labels: the K labels.
        positives: (K,) number of positive training rows.

    Raises:
        ConfigError: a bound or a choice is not valid for its key, or `search.proxy` does not support a key.
    """
    search = config.search
    space = {full_key(name): dimension for name, dimension in search.space.items()}
    _check_proxy(config, space)
    found: list[Parameter] = []
    for key, dimension in space.items():
        groups: dict[str, tuple[str, ...]] = {}
        if key in ASL_KEYS and search.share == "bucket":
            groups = frequency_buckets(labels, positives)
        elif key in ASL_KEYS and search.share == "label":
            groups = {label: (label,) for label in labels}
        integer = is_integer(key)
        found += [Parameter(f"{key}[{name}]", key, part, dimension, integer) for name, part in groups.items()]
        found += [] if groups else [Parameter(key, key, None, dimension, integer)]
    for parameter in found:
        _check_values(config, parameter)
    return tuple(found)


def frequency_buckets(labels: Sequence[str], positives: Sequence[int]) -> dict[str, tuple[str, ...]]:
    """The labels in three buckets by their number of positives: rare, middle and frequent; fewer for K < 3."""
    order = sorted(range(len(labels)), key=lambda place: (positives[place], labels[place]))
    names = BUCKETS if len(labels) >= len(BUCKETS) else BUCKETS[:: len(BUCKETS) - 1][: len(labels)]
    parts = np.array_split(order, len(names))
    return {name: tuple(labels[place] for place in sorted(part)) for name, part in zip(names, parts, strict=True)}


def config_with(config: Config, parameters: Sequence[Parameter], values: Values, *, source: str) -> Config:
    """`config` with the values of a trial.

    Raises:
        ConfigError: the values do not fit together; the message begins with `source`.
    """
    data = config.model_dump(mode="json", exclude_unset=True)
    for key, value in diff_of(parameters, values).items():
        section, _, name = key.partition(".")
        if name:
            data[section] = {**data.get(section, {}), name: value}
        else:  # a whole section, except the keys that no trial may change
            kept = kept_keys(section)
            data[section] = {**{key: own for key, own in data.get(section, {}).items() if key in kept}, **value}
    return check_config(data, source=source)


def diff_of(parameters: Sequence[Parameter], values: Values) -> dict[str, Any]:
    """The dotted config keys that a trial's values set, with their values in the config."""
    diff: dict[str, Any] = {}
    for parameter in parameters:
        value = _in_config(parameter, values[parameter.name])
        if parameter.labels is None:
            diff[parameter.key] = value
        else:
            diff.setdefault(parameter.key, {}).update(dict.fromkeys(parameter.labels, value))
    return diff


def own_values(config: Config, parameters: Sequence[Parameter]) -> tuple[dict[str, Any], list[str]]:
    """The config's own values as a trial, and a note on each that lies outside the space.

    If there is a note, the own values are not tried.
    """
    values: dict[str, Any] = {}
    notes = []
    data = config.model_dump(mode="json")
    for parameter in parameters:
        section, _, name = parameter.key.partition(".")
        own = data[section][name] if name else data[section]
        if parameter.labels is not None and isinstance(own, Mapping):
            numbers = {own[label] for label in parameter.labels if label in own}
            own = numbers.pop() if len(numbers) == 1 else own
        stored = _chosen(config, parameter) if parameter.dimension.choices else _in_range(parameter, own)
        if stored is None:
            shown = json.dumps(own) if isinstance(own, list | dict) else own
            notes.append(f"the config's own {parameter.name}={shown} lies outside search.space and is not tried")
        else:
            values[parameter.name] = stored[0]
    return values, notes


def _in_config(parameter: Parameter, value: Any) -> Any:
    """The value in the config; numbers are rounded to few digits, inside the range, so that they are short to type."""
    if parameter.choices is not None:
        return parameter.choices[value]
    if parameter.integer:
        return int(value)
    assert parameter.dimension.low is not None  # a range has both
    assert parameter.dimension.high is not None
    return min(max(float(f"{value:.{_DIGITS}g}"), parameter.dimension.low), parameter.dimension.high)


def _chosen(config: Config, parameter: Parameter) -> tuple[Any] | None:
    """The choice that equals the config's own value, in a tuple because it may be null; None if there is none."""
    for stored in parameter.choices or ():
        made = config_with(config, [parameter], {parameter.name: stored}, source=f"search.space.{parameter.key}")
        if _same(made, config, parameter):
            return (stored,)
    return None


def _same(made: Config, config: Config, parameter: Parameter) -> bool:
    """Whether both configs have the same values for the labels of the parameter."""
    new, old = training_values(made), training_values(config)
    if parameter.labels is None:
        return new == old
    numbers = [old.get(f"{parameter.key}.{label}", old.get(parameter.key)) for label in parameter.labels]
    return all(
        new[f"{parameter.key}.{label}"] == number for label, number in zip(parameter.labels, numbers, strict=True)
    )


def _in_range(parameter: Parameter, own: Any) -> tuple[Any] | None:
    low, high = parameter.dimension.low, parameter.dimension.high
    if isinstance(own, bool) or not isinstance(own, int | float) or low is None or high is None:
        return None
    step = parameter.dimension.step
    on_grid = step is None or math.isclose((own - low) / step, round((own - low) / step), abs_tol=1e-9)
    return (own,) if low <= own <= high and on_grid else None


def _check_values(config: Config, parameter: Parameter) -> None:
    """Check each bound and each choice against the schema."""
    dimension = parameter.dimension
    stored = list(parameter.choices) if parameter.choices is not None else [dimension.low, dimension.high]
    whole = (dimension.low, dimension.high, dimension.step if dimension.step is not None else 1)
    if parameter.integer and parameter.choices is None and any(int(number or 0) != number for number in whole):
        raise ConfigError(
            f"search.space.{parameter.key}: its values are integers", remedy="write low, high and step as integers"
        )
    for value in stored:
        for_all_labels = [Parameter(parameter.name, parameter.key, None, dimension, parameter.integer)]
        config_with(config, for_all_labels, {parameter.name: value}, source=f"search.space.{parameter.key}={value}")


def _check_proxy(config: Config, space: Mapping[str, Dimension]) -> None:
    if config.search.proxy == "none" or config.train.frozen_backbone:
        return
    other = [key for key in space if key not in HEAD_KEYS and key.partition(".")[0] != "loss"]
    if other:
        raise ConfigError(
            f"search.proxy=head cannot compare {listing(other)}: feature maps are made with the config's own value",
            expected=f"loss keys and {listing(sorted(HEAD_KEYS), 20)}",
            remedy="take these keys out of search.space, or set search.proxy=none",
        )


def diff_text(diff: Mapping[str, Any]) -> str:
    """The YAML of a config with these dotted keys."""
    nested: dict[str, Any] = {}
    for key, value in diff.items():
        section, _, name = key.partition(".")
        if name:
            nested.setdefault(section, {})[name] = value
        else:
            nested[section] = value
    return yaml.safe_dump(nested, sort_keys=False, allow_unicode=True)
