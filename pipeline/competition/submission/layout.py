"""The punctuation of a submission's cell that holds several names or values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.competition.labels.list_cells import holds_list, holds_vector, parse_list, split_vector

CellsKind = Literal["joined", "list", "vector"]

_BITS = {"0": "1", "0.": "1.", "0.0": "1.0", "false": "true", "False": "True", "FALSE": "TRUE"}


@dataclass(frozen=True)
class Layout:
    """Several items in one cell: `['cat', 'dog']` has the start `[`, the joint `, `, the end `]` and the quote `'`.

    Attributes:
        bits: how a vector writes 0 and 1.
    """

    start: str = ""
    joint: str = " "
    end: str = ""
    quote: str = ""
    bits: tuple[str, str] = ("0", "1")

    def join(self, items: Iterable[str]) -> str:
        """The cell with these items."""
        return self.start + self.joint.join(f"{self.quote}{item}{self.quote}" for item in items) + self.end

    def split(self, cell: str) -> list[str] | None:
        """The items of a cell; None if it has another punctuation."""
        inside = cell.removeprefix(self.start).removesuffix(self.end)
        if cell != self.start + inside + self.end:
            return None
        items = inside.split(self.joint) if inside and self.joint else list(inside)
        plain = [item.strip(self.quote) if self.quote else item for item in items]
        return plain if self.join(plain) == cell else None


def layout_like(cells: Iterable[str], kind: Literal["list", "vector"], labels: Sequence[str]) -> Layout:
    """The layout of the cell with most items among the first hundred of this kind; Python's own if there is none."""
    holds, items_of = (holds_list, parse_list) if kind == "list" else (holds_vector, split_vector)
    found = [cell.strip() for cell in cells if holds(cell)][:100]
    if found:
        return _layout_of(max(found, key=lambda cell: len(items_of(cell))), items_of)
    quoted = kind == "list" and not all(label.isdecimal() for label in labels)
    return Layout("[", ", ", "]", "'" if quoted else "")


def _layout_of(cell: str, items_of: Callable[[str], list[str]]) -> Layout:
    items = items_of(cell)
    gaps, rest = [], cell
    for item in items:
        gap, _, rest = rest.partition(item)
        gaps.append(gap)
    quote = gaps[0][-1:] if gaps[0][-1:] in ("'", '"') else ""
    joint = gaps[1] if len(gaps) > 1 else f"{quote}, {quote}"
    bits = next(((zero, one) for zero, one in _BITS.items() if items[0] in (zero, one)), ("0", "1"))
    width = len(quote)
    return Layout(gaps[0][: len(gaps[0]) - width], joint[width : len(joint) - width], rest[width:], quote, bits)
