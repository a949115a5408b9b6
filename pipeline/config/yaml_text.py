"""Reads YAML text that anybody may have written: plain values of a limited size, or one error."""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError

_MOST_LETTERS, _MOST_VALUES, _DEEPEST = 1 << 22, 1_000_000, 50
_UNFIT = re.compile("[\0\ud800-\udfff]")


def parse_yaml(text: str) -> Any:
    """The values in `text`: mappings, lists, strings, numbers, dates and null.

    Raises:
        ValueError: it is no YAML; a key occurs twice in a mapping; a string holds a zero byte or half a surrogate pair;
            the text is longer than 4 MiB, or holds more than a million values once its aliases are replaced.
    """
    if len(text) > _MOST_LETTERS:
        raise ValueError(f"longer than {_MOST_LETTERS:,} letters")
    if _UNFIT.search(text):
        raise ValueError("it holds a zero byte or half a character")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where is not None else ""
        raise ValueError(f"not valid YAML{line}: {str(getattr(error, 'problem', error))[:200]}") from None
    except RecursionError:
        raise ValueError("nested too deeply, or an alias holds itself") from None
    except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        # PyYAML lets these through for a date such as 2024-13-45, a tag such as !!int x, and a list as a key
        raise ValueError(f"not valid YAML: a tag, date, number or key that does not fit: {str(error)[:200]}") from None


class _Loader(yaml.SafeLoader):
    """Counts values before they are made; refuses a key that occurs twice, where plain YAML keeps the last."""

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        if self.flow_level > _DEEPEST:  # the scanner's time grows with the square of the depth
            raise ConstructorError(None, None, "nested too deeply", None)
        super().fetch_flow_collection_start(token)

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _values_in(node, {}) > _MOST_VALUES:
            raise ConstructorError(None, None, f"its aliases stand for more than {_MOST_VALUES:,} values", None)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for place, _ in node.value:
            key = self.construct_object(place, deep=True)
            if key in seen:
                raise ConstructorError(None, None, f"the key '{key}' occurs twice", place.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and _UNFIT.search(value):
            raise ConstructorError(None, None, "a text holds a zero byte or half a character", node.start_mark)
        return value


def _values_in(node: Any, counted: dict[int, int]) -> int:
    """The number of values in a node with each alias replaced; `counted` keeps that of collections."""
    if isinstance(node, tuple):
        return sum(_values_in(part, counted) for part in node)
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in counted:
        counted[id(node)] = 1 + sum(_values_in(part, counted) for part in node.value)
    return counted[id(node)]
