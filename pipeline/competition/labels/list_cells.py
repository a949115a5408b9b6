"""Cells that hold several values: lists of names, and vectors with a 0 or 1 for each label."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any, Literal

CellKind = Literal["joined", "list", "vector"]

_BITS = {"0": 0.0, "0.": 0.0, "0.0": 0.0, "false": 0.0, "1": 1.0, "1.": 1.0, "1.0": 1.0, "true": 1.0}
_WRAPPED = re.compile(r"[\w.]+\((.*?)(,\s*dtype=[^)]*)?\)", re.DOTALL)  # array([0., 1.], dtype=float32)
_BRACKETS = {"[": "]", "(": ")", "{": "}", "<": ">"}
_GAPS = re.compile(r"[\s,;|/]+")
_GLUED_TEXTS = re.compile(r"""["']\s+["']""")
_CUT_ZEROS = 4  # digits: cells such as 1100 and 101 are vectors whose first zeros a spreadsheet removed
_NOTHING = re.compile(r"nan|none|null|nil|n\.?/?a\.?|<na>|#n/a|n/d|-+|–|—|\?+", re.IGNORECASE)


def means_nothing(text: str) -> bool:
    """Whether a text such as nan, None, N/A or - stands for a missing value in tables that programs wrote."""
    return _NOTHING.fullmatch(text.strip()) is not None


def kind_of_cells(cells: Sequence[str]) -> CellKind:
    """The way in which most cells are written. Blank cells and words for a missing value do not count.

    Cells of 0 and 1 are vectors, not names, if all have the same length, and some repeat a value or all hold both.
    """
    filled = [cell for cell in {cell.strip() for cell in cells} if cell and not means_nothing(cell)]
    if filled and _are_vectors(filled):
        return "vector"
    return "list" if 2 * sum(map(_is_bracketed, filled)) > len(filled) else "joined"


def parse_list(cell: str) -> list[str]:
    """The names in a cell that is a JSON or Python list of texts or whole numbers; none for a blank cell.

    Raises:
        ValueError: the cell is anything else, or a comma is missing: Python would join the two texts.
    """
    if not cell.strip():
        return []
    items = _literal(cell)
    if not isinstance(items, list | tuple):
        raise ValueError("not a list")  # noqa: TRY004 (the callers know one error)
    # pandas turns whole numbers into floats where a value is missing
    items = [int(item) if type(item) is float and item.is_integer() else item for item in items]
    if not all(type(item) in (str, int) for item in items):
        raise ValueError("not a list of texts or whole numbers")
    names = [str(item).strip() for item in items]
    if not all(names):
        raise ValueError("a blank name")
    return names


def holds_list(cell: str) -> bool:
    """Whether a cell is a list that `parse_list` reads."""
    try:
        return _is_bracketed(cell.strip() or "-") and bool(parse_list(cell))
    except ValueError:
        return False


def holds_object(cell: str) -> bool:
    """Whether a cell is a JSON object or a Python dict, such as an annotation tool's `{"choices": ["cat"]}`."""
    return _named_values(cell) is not None


def holds_vector(cell: str) -> bool:
    """Whether a cell is a vector that `parse_vector` reads."""
    try:
        return len(parse_vector(cell)) > 1
    except ValueError:
        return False


def parse_vector(cell: str) -> dict[str, float] | list[float]:
    """The values of a cell such as `[0, 1]`, `0 1`, `01`, `['0', '1']`, `[0. 1.]` or `{'cat': 0, 'dog': True}`.

    Raises:
        ValueError: a value is not 0 or 1.
    """
    named = _named_values(cell)
    texts = list(named.values()) if named is not None else split_vector(cell)
    wrong = [text for text in texts if text.lower() not in _BITS]
    if wrong:
        raise ValueError(f"'{wrong[0][:40]}' is not 0 or 1")
    values = [_BITS[text.lower()] for text in texts]
    return values if named is None else dict(zip(named, values, strict=True))


def split_vector(cell: str) -> list[str]:
    """The texts in a vector's cell, without brackets and quotes; a text of 0 and 1 alone is split by character."""
    text = cell.strip()
    wrapped = _WRAPPED.fullmatch(text)
    text = wrapped.group(1).strip() if wrapped is not None else text
    if re.fullmatch("[01]{2,}", text):
        return list(text)
    if len(text) > 1 and _BRACKETS.get(text[0]) == text[-1]:
        text = text[1:-1]
    return [part.strip("'\"") for part in _GAPS.split(text.strip()) if part]


def _are_vectors(filled: Sequence[str]) -> bool:
    named = [_named_values(cell) for cell in filled]
    if all(one and _BITS.keys() >= {text.lower() for text in one.values()} for one in named):
        return True
    rows = []
    for cell in filled:
        rows.append([text.lower() for text in split_vector(cell)])
        if not rows[-1] or not _BITS.keys() >= set(rows[-1]):
            return False
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        return max(lengths) >= _CUT_ZEROS and all(re.fullmatch("[01]+", cell) for cell in filled)
    repeat = any(len(set(row)) < len(row) for row in rows)
    return max(lengths) > 1 and (repeat or all(len(set(row)) > 1 for row in rows))


def _is_bracketed(cell: str) -> bool:
    return cell[0] in "[("


def _named_values(cell: str) -> dict[str, str] | None:
    """The values of a cell that is a dict, as texts; None for any other cell."""
    if not cell.strip().startswith("{"):
        return None
    try:
        found = _literal(cell)
    except ValueError:
        return None
    return {str(name).strip(): str(value) for name, value in found.items()} if isinstance(found, dict) else None


def _literal(cell: str) -> Any:
    """The value of a JSON or Python literal. Raises ValueError if the cell is none."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        if _GLUED_TEXTS.search(cell):
            raise ValueError("texts without a comma between them") from None
    try:
        return ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("not a list") from None
