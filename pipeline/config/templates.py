"""Templates of file names with placeholders, such as `train/{id:05d}_{channel}.png`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PLACEHOLDER = re.compile(r"\{([^{}\[\]:]+)(?:\[([^\[\]{}]*)\])?(?::([^{}]*))?\}")
_POSITION, _RANGE = re.compile(r"-?\d+"), re.compile(r"(-?\d+)?:(-?\d+)?")
_NUMBER_ENDS = tuple("bdoxX")


@dataclass(frozen=True)
class Placeholder:
    """One `{...}` of a template.

    Attributes:
        name: of the column, or `channel`.
        part: the slice of the cell, or None for the whole cell.
        spec: a format as in Python; whole numbers if it ends like `05d`.
    """

    name: str
    part: slice | None
    spec: str

    @property
    def is_number(self) -> bool:
        """Whether the cell must be a whole number."""
        return self.spec.endswith(_NUMBER_ENDS)


def parse_template(template: str) -> list[str | Placeholder]:
    """The literal parts and placeholders of a template, in their order.

    A placeholder is `{column}`. It may take a part of the cell (`{id[0]}`, `{id[:2]}`, `{id[-3:]}`) and format it
    (`{id:05d}`).

    Raises:
        ValueError: a brace belongs to no placeholder, or Python does not know a format.
    """
    parts: list[str | Placeholder] = []
    end = 0
    for match in _PLACEHOLDER.finditer(template):
        parts.append(template[end : match.start()])
        parts.append(_placeholder(match))
        end = match.end()
    parts.append(template[end:])
    for part in parts:
        if isinstance(part, str) and ("{" in part or "}" in part):
            raise ValueError(
                f"'{part}' in the template '{template}' is no placeholder such as {{id}}, {{id[:2]}} or {{id:05d}}"
            )
    return [part for part in parts if part != ""]


def columns_of(template: str) -> list[str]:
    """The names of the columns in a template, each once; `channel` is one of them if it is used."""
    return list(dict.fromkeys(part.name for part in parse_template(template) if isinstance(part, Placeholder)))


def holds_id(template: str) -> bool:
    """Whether file names hold the whole id: the template has `{id}` without a slice."""
    parts = parse_template(template)
    return any(isinstance(part, Placeholder) and part.name == "id" and part.part is None for part in parts)


def _placeholder(match: re.Match[str]) -> Placeholder:
    name, part, spec = match.groups()
    spec = spec or ""
    if re.search(r"\d{4}", spec):
        raise ValueError(f"'{spec}' in '{match.group()}' is too wide: a format has up to three digits")
    try:
        format(1 if spec.endswith(_NUMBER_ENDS) else "a", spec)
    except ValueError:
        raise ValueError(f"'{spec}' in '{match.group()}' is no format: write for example {{{name}:05d}}") from None
    return Placeholder(name, None if part is None else _slice(part, match.group()), spec)


def _slice(part: str, where: str) -> slice:
    if _POSITION.fullmatch(part):
        first = int(part)
        return slice(first, None if first == -1 else first + 1)
    ends = _RANGE.fullmatch(part)
    if ends is None:
        raise ValueError(f"'[{part}]' in '{where}' is no part: write for example [0], [:2] or [-3:]")
    return slice(*(None if end is None else int(end) for end in ends.groups()))
