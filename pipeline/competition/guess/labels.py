"""The label format of a table, guessed from its cells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.competition.labels import find_suffixes, split_keys, split_names
from pipeline.errors import CompetitionError, listing
from pipeline.events import ignore

_BINARY = frozenset({"0", "1", "0.0", "1.0", "0.", "1.", "True", "False", "true", "false"})
_UNCERTAIN = frozenset({"-1", "-1.0"})
_NAMES = re.compile(r"label|tag|class|target|finding|attribute|categor|disease|genre|annotation", re.IGNORECASE)
_NOTHING = re.compile(r"no[ _-]?finding|none|nothing|empty|background", re.IGNORECASE)
_SEPARATORS = ("|", ";", ",", " ")


class LabelGuess(NamedTuple):
    """A section `competition.labels`, the labels that it finds, and the evidence."""

    section: dict[str, Any]
    labels: tuple[str, ...]
    reasons: tuple[str, ...]


def guess_labels(columns: Mapping[str, Sequence[str]], *, sample: Sequence[str]) -> LabelGuess | None:
    """The labels of a table with a row per image; None if no column looks like labels.

    Args:
        columns: the cells of each column except the id, image and group columns.
        sample: the sample submission's columns beside the id.
    """
    binary = [name for name, cells in columns.items() if _is_binary(cells)]
    promised = [name for name in sample if name in columns]
    if promised and set(promised) <= set(binary):
        reason = f"labels: the {len(promised)} columns of the sample submission hold 0 and 1 in the table"
        return _wide(promised, columns, {}, reason)
    column = _delimited_column(columns)
    if len(binary) >= 2 or (binary and column is None):
        reason = f"labels: the columns {listing(binary, 30)} hold nothing but 0 and 1"
        return _wide(binary, columns, {"columns": binary}, reason)
    return None if column is None else _delimited(column, columns[column])


class LongGuess(NamedTuple):
    """A table with a row per `<id>_<label>`: the column of these keys, the distinct ids, and the labels."""

    key: str
    ids: tuple[str, ...]
    labels: LabelGuess


def guess_long(columns: Mapping[str, Sequence[str]], path: Path) -> LongGuess | None:
    """The labels of a table with two columns, keys and numbers; None if it does not have each label of each image."""
    values = [name for name, cells in columns.items() if _is_binary(cells)]
    keys = [name for name in columns if name not in values]
    if len(values) != 1 or len(keys) != 1:
        return None
    try:
        labels = find_suffixes(columns[keys[0]], "_", path)
        ids, _ = split_keys(columns[keys[0]], labels, "_", path=path, listen=ignore)
    except CompetitionError:
        return None
    reason = f"labels: '{keys[0]}' holds an id and one of {len(labels)} labels, joined by '_': {listing(labels)}"
    section = {"format": "long", "column": values[0]}
    return LongGuess(keys[0], tuple(dict.fromkeys(ids)), LabelGuess(section, labels, (reason,)))


def guess_rows(columns: Mapping[str, Sequence[str]], ids: Sequence[str]) -> LabelGuess | None:
    """The labels of a table with several rows per image, one label in each; None if no column looks like labels.

    Args:
        columns: the cells of each column except the id, image and group columns.
        ids: the image of each row.
    """
    column = _delimited_column(columns)
    if column is None:
        return None
    names = [cell.strip() for cell in columns[column]]
    labels = tuple(sorted(name for name in set(names) if name and not _NOTHING.fullmatch(name)))
    nothing = sorted(name for name in set(names) if _NOTHING.fullmatch(name))
    section: dict[str, Any] = {"format": "long", "label_column": column}
    reasons = [f"labels: an id may have several rows, and '{column}' names one label in each: {listing(labels)}"]
    values = [name for name, cells in columns.items() if name != column and _is_binary(cells)]
    complete = len(set(zip(ids, names, strict=True))) == len(ids) == len(set(ids)) * len(set(names))
    if complete and len(values) == 1:
        section["column"] = values[0]
        reasons.append(f"labels.column: each id has a row for each label, and '{values[0]}' holds 0 and 1")
    if nothing:
        section["empty_tokens"] = nothing
        reasons.append(f"labels.empty_tokens: '{nothing[0]}' reads like no label at all")
    return LabelGuess(section, labels, tuple(reasons))


def _is_binary(cells: Sequence[str]) -> bool:
    return bool(_BINARY & set(cells)) and set(cells) <= _BINARY | _UNCERTAIN | {""}


def _wide(
    labels: Sequence[str], columns: Mapping[str, Sequence[str]], section: dict[str, Any], reason: str
) -> LabelGuess:
    reasons = [reason]
    if any(_UNCERTAIN & set(columns[name]) for name in labels):
        section = {**section, "uncertain": "ignore"}
        reasons.append("labels.uncertain: some cells hold -1; they are masked unless you set ones or zeros")
    if any("" in columns[name] for name in labels):
        section = {**section, "missing": "zeros"}
        reasons.append("labels.missing: some cells are blank; they count as 0 unless you set ones or ignore")
    return LabelGuess(section, tuple(labels), tuple(reasons))


def _delimited_column(columns: Mapping[str, Sequence[str]]) -> str | None:
    """The first column with a name such as labels or tags, else the one whose values recur most."""
    named = [name for name in columns if _NAMES.search(name)]
    if named:
        return named[0]
    recurring = {name: _recurrence(cells) for name, cells in columns.items() if not _is_numeric(cells)}
    best = max(recurring, key=lambda name: recurring[name], default=None)
    return best if best is not None and recurring[best] >= 2 else None


def _is_numeric(cells: Sequence[str]) -> bool:
    return all(re.fullmatch(r"-?[0-9.]*", cell) for cell in cells)


def _recurrence(cells: Sequence[str]) -> float:
    names = [name for cell in cells for name in split_names(cell, _separator(cells))]
    return len(names) / len(set(names)) if len(set(names)) > 1 else 0.0


def _separator(cells: Sequence[str]) -> str:
    return next((mark for mark in _SEPARATORS if any(mark in cell.strip() for cell in cells)), " ")


def _delimited(column: str, cells: Sequence[str]) -> LabelGuess:
    section: dict[str, Any] = {"format": "delimited", "column": column}
    filled = [cell.strip() for cell in cells if cell.strip()]
    if filled and all(cell.startswith("[") and cell.endswith("]") for cell in filled):
        reason = f"labels: the cells of '{column}' are lists, such as {filled[0][:40]}"
        names = [re.findall(r"[^\[\],'\"]+", cell) for cell in filled]
        found = tuple(sorted({name.strip() for row in names for name in row} - {""}))
        return LabelGuess({**section, "cells": "list"}, found, (reason,))
    separator = _separator(cells)
    counts = Counter(name for cell in cells for name in split_names(cell, separator))
    reasons = [
        f"labels: the cells of '{column}' hold {len(counts)} names, joined by {separator!r}: {listing(sorted(counts))}"
    ]
    if separator != " ":
        section["separator"] = separator
    alone = [
        name for name in counts if _NOTHING.fullmatch(name) and sum(cell == name for cell in filled) == counts[name]
    ]
    if alone:
        section["empty_tokens"] = alone
        reasons.append(f"labels.empty_tokens: '{alone[0]}' is always alone in its cell and reads like no label at all")
    return LabelGuess(section, tuple(sorted(set(counts) - set(alone))), tuple(reasons))
