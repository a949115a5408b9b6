"""From a YAML diff and overrides to a checked Config; one error lists all mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.config.labels import LABEL_FORMATS
from pipeline.config.metric import METRIC_TAGS, anchored_metric
from pipeline.config.recipes import with_recipe
from pipeline.config.schema import Config
from pipeline.config.search import Dimension, SearchConfig, full_key
from pipeline.config.yaml_text import parse_yaml
from pipeline.errors import ConfigError, listing, nearest, printable, shown
from pipeline.machine import regular

_LONGEST_LINE, _MOST_LINES = 1000, 30  # of the message on mistakes


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML diff, lay `key.path=value` overrides over it and check all of it at once.

    The file of a user's metric function is relative to the config's folder; the result has it relative to the working
    directory.

    Raises:
        ConfigError: the file is missing or no YAML mapping, or keys or values are wrong; it lists all mistakes.
    """
    data = _read_yaml(path)
    for override in overrides:
        _apply_override(data, override)
    config = check_config(data, source=str(path))
    metric = anchored_metric(config.competition.metric, path.parent)
    return config.model_copy(update={"competition": config.competition.model_copy(update={"metric": metric})})


def check_config(data: Mapping[str, Any], *, source: str, complete: bool = False) -> Config:
    """The Config that `data` describes. Raises one ConfigError with all mistakes, which names `source`.

    Args:
        data: a config diff, whose recipe is laid under it.
        source: the name of the file, for the error.
        complete: `data` is the config of a run, which the recipe is part of already.
    """
    try:
        return Config.model_validate(data if complete else with_recipe(data))
    except ValidationError as error:
        mistakes = [_sentence(dict(details)) for details in error.errors(include_url=False)]
        plural = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        lines = [f"  - {mistake[:_LONGEST_LINE]}" for mistake in mistakes[:_MOST_LINES]]
        lines += [f"  and {len(mistakes) - _MOST_LINES} more"] if len(mistakes) > _MOST_LINES else []
        raise ConfigError(
            "\n".join([f"{source}: {plural} in the configuration", *lines]),
            remedy="correct these keys; configs/base.yaml lists every key with its meaning",
        ) from None


def dump_config(config: Config) -> str:
    """The complete config as YAML text. The inverse is `check_config(yaml.safe_load(text))`."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = regular(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such config file",
            remedy="give the path of a YAML file, for example configs/demo.yaml",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}", remedy="give a readable UTF-8 YAML file") from None
    try:
        data = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}", remedy="correct that line") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: the file is not a mapping of sections",
            expected="sections such as 'competition:' and 'train:'",
            got=type(data).__name__,
            remedy="start from configs/demo.yaml",
        )
    return data


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    names = key.split(".")
    if not separator or not all(names):
        raise ConfigError(
            f"the override '{override}' is not of the form key.path=value",
            remedy="write it like train.epochs=10 or model.head=gap",
        )
    if printable(override) != override:
        raise ConfigError(f"the override '{override}' holds letters that cannot be printed", remedy="write it again")
    try:
        value = parse_yaml(text)
    except ValueError:
        value = text  # plain text such as {id}.jpg, which is a broken mapping in YAML
    if names[:2] == ["search", "space"] and len(names) > 2:
        names, value = names[:2], _changed_space(data, names[2:], value)
    place = data
    for name in names[:-1]:
        inner = place.get(name)
        place[name] = dict(inner) if isinstance(inner, Mapping) else {}
        place = place[name]
    place[names[-1]] = value


def _changed_space(data: Mapping[str, Any], names: list[str], value: Any) -> Any:
    """The space of `data`, or else the default one, with one dimension set, changed in one field, or removed by null.

    The keys of a space hold dots: `names` are the parts of one key, and possibly a field of its dimension.
    """
    search = data.get("search")
    given = search.get("space") if isinstance(search, Mapping) else None
    if given is not None and not isinstance(given, Mapping):
        return given  # the schema reports the mistake
    space = SearchConfig().model_dump(mode="json")["space"] if given is None else dict(given)
    field = names.pop() if len(names) > 1 and names[-1] in Dimension.model_fields else None
    wanted = _full_or_same(".".join(names))
    key = next((key for key in space if _full_or_same(str(key)) == wanted), wanted)
    if field is not None:
        own = space.get(key)
        space[key] = {**(own if isinstance(own, Mapping) else {}), field: value}
    elif value is None and key in space:
        del space[key]
    else:
        space[key] = value  # the schema reports an unknown key
    return space


def _full_or_same(name: str) -> str:
    """The full key, if there is one; the schema reports the others."""
    try:
        return full_key(name)
    except ValueError:
        return name


def _sentence(details: Mapping[str, Any]) -> str:
    # pydantic puts the chosen tag of a union into the location, but it is no key.
    before = ("", *details["loc"])
    location = [
        part
        for part, parent in zip(details["loc"], before, strict=False)
        if part not in METRIC_TAGS and (parent != "labels" or part not in LABEL_FORMATS)
    ]
    location = [part for part in location if not str(part).startswith("groups by ")]
    key = ".".join(str(part) for part in location)
    if ":" in str(location[-1:]) and details.get("input") is None:  # YAML reads {a:1} as a key without a value
        return f"{key}: a key without a value; write a blank after the colon"
    if details["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        hint = nearest(str(location[-1]), known) or f"; known here: {listing(known, 12)}"
        return f"{key}: unknown key{hint}"
    if details["type"] == "union_tag_invalid":
        return f"{key}.format: unknown format '{details['ctx']['tag']}'; choose one of {', '.join(LABEL_FORMATS)}"
    got = details.get("input")
    found = "" if isinstance(got, Mapping | BaseModel) else f", got {shown(got)}"
    return f"{key}{': ' if key else ''}{details['msg'].removeprefix('Value error, ')}{found}"


def _known_keys(location: Sequence[Any]) -> list[str]:
    section: Any = Config
    for name in location:
        section = section.model_fields[name].annotation if name in section.model_fields else section
        if not hasattr(section, "model_fields"):  # a union: the keys of all its sections
            members = [part for part in _union_members(section) if hasattr(part, "model_fields")]
            return sorted({key for part in members for key in part.model_fields})
    return list(section.model_fields)


def _union_members(annotation: Any) -> Iterator[Any]:
    for part in getattr(annotation, "__args__", ()):
        yield part
        yield from _union_members(part)
