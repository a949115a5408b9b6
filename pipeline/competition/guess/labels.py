"""The label format of a table, guessed from its cells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.competition.labels import find_suffixes, split_keys, split_names
from pipeline.competition.labels.list_cells import holds_list, kind_of_cells, means_nothing, parse_list, parse_vector
from pipeline.competition.labels.rows import in_order
from pipeline.errors import CompetitionError, listing
from pipeline.events import ignore

_BINARY = frozenset({"0", "1", "0.0", "1.0", "0.", "1.", "True", "False", "true", "false"})
_ZEROS = frozenset({"0", "0.0", "0.", "False", "false"})
_UNCERTAIN = frozenset({"-1", "-1.0"})
_NO_LABELS = frozenset({"sex", "gender", "male", "female", "fold", "split", "train", "valid", "test", "age"})
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
    binary = [name for name, cells in columns.items() if _is_binary(cells) and not words_of(name) & _NO_LABELS]
    promised = [name for name in sample if name in columns]
    if promised and set(promised) <= set(binary):
        reason = f"labels: the {len(promised)} columns of the sample submission hold 0 and 1 in the table"
        return _wide(promised, columns, {}, reason)
    column = _delimited_column(columns)
    family = _family(columns)
    if len(family) > 1 and len(binary) < len(family):
        names = sorted({cell.strip() for name in family for cell in columns[name]} - {""})
        nothing = [name for name in names if means_nothing(name) or _NOTHING.fullmatch(name)]
        found = tuple(name for name in names if name not in nothing)
        section = {"format": "columns", "columns": family, **({"empty_tokens": nothing} if nothing else {})}
        return LabelGuess(section, found, (f"labels: {listing(family)} hold a name each, of {len(found)}",))
    if len(binary) >= 2 or (binary and column is None):
        reason = f"labels: the columns {listing(binary, 30)} hold nothing but 0 and 1"
        return _wide(binary, columns, {"columns": binary}, reason)
    return None if column is None else _delimited(column, columns[column], sample)


class LongGuess(NamedTuple):
    """A table with a row per `<id>_<label>`: the column of these keys, the distinct ids, and the labels."""

    key: str
    ids: tuple[str, ...]
    labels: LabelGuess


def guess_long(columns: Mapping[str, Sequence[str]], path: Path) -> LongGuess | None:
    """The labels of a table with two columns, keys and values; None if it does not have each label of each image.

    Values are 0 and 1, or texts such as masks beside blank cells.
    """
    values = [name for name, cells in columns.items() if _is_binary(cells)]
    filled = [name for name, cells in columns.items() if any(not cell.strip() for cell in cells)]
    masks = not values and len(filled) == 1
    values = filled if masks else values
    keys = [name for name in columns if name not in values]
    if len(values) != 1 or len(keys) != 1:
        return None
    try:
        labels = find_suffixes(columns[keys[0]], "_", path)
        ids, _ = split_keys(columns[keys[0]], labels, "_", path=path, listen=ignore)
    except CompetitionError:
        return None
    reason = f"labels: '{keys[0]}' holds an id and one of {len(labels)} labels, joined by '_': {listing(labels)}"
    section: dict[str, Any] = {"format": "long", "column": values[0], **({"filled": True} if masks else {})}
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
    elif len(values) == 1 and _ZEROS & {*columns[values[0]]}:
        section |= {"column": values[0], "missing": "ignore"}
        reasons.append(f"labels.column: '{values[0]}' holds 0 and 1; a label without a row is unknown")
    if nothing:
        section["empty_tokens"] = nothing
        reasons.append(f"labels.empty_tokens: '{nothing[0]}' reads like no label at all")
    return LabelGuess(section, labels, tuple(reasons))


def _is_binary(cells: Sequence[str]) -> bool:
    filled = {cell.strip() for cell in cells if not means_nothing(cell)} - {""}
    return bool(_BINARY & filled) and filled <= _BINARY | _UNCERTAIN


def words_of(name: str) -> set[str]:
    """The words in a column's name: PatientID, patient_id and "Patient ID" have patient and id."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+", name)}


def _family(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Columns such as label_1 and label_2, called alike but for a number, that hold names."""
    families: dict[str, list[str]] = {}
    for name, cells in columns.items():
        if re.search(r"\d", name) and _NAMES.search(name) and not _is_numeric(cells):
            families.setdefault(re.sub(r"\d+", "#", name), []).append(name)
    return max(families.values(), key=len, default=[])


def _wide(
    labels: Sequence[str], columns: Mapping[str, Sequence[str]], section: dict[str, Any], reason: str
) -> LabelGuess:
    reasons = [reason]
    if any(_UNCERTAIN & set(columns[name]) for name in labels):
        no_zeros = not any(_ZEROS & set(columns[name]) for name in labels)
        section = {**section, "uncertain": "zeros" if no_zeros else "ignore"}
    if any(_UNCERTAIN & set(columns[name]) for name in labels) and no_zeros:
        reasons.append("labels.uncertain: cells hold -1 and 1 and never 0, so -1 means no")
    elif any(_UNCERTAIN & set(columns[name]) for name in labels):
        reasons.append("labels.uncertain: some cells hold -1; they are masked unless you set ones or zeros")
    if any(not cell.strip() or means_nothing(cell) for name in labels for cell in set(columns[name])):
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


def _several(section: dict[str, Any], filled: Sequence[str], sample: Sequence[str]) -> LabelGuess:
    """The labels of cells that are lists, or vectors of values."""
    reason = f"labels: the cells of '{section['column']}' are {section['cells']}s, such as {filled[0][:40]}"
    if section["cells"] == "list":
        found = {name for cell in filled if holds_list(cell) for name in parse_list(cell)}
        return LabelGuess(section, in_order(found), (reason,))
    first = parse_vector(filled[0])
    if isinstance(first, dict):
        return LabelGuess(section, tuple(first), (reason,))
    named = len(sample) == len(first) > 1
    classes = tuple(sample) if named else tuple(f"class_{number}" for number in range(len(first)))
    why = (
        "labels.classes: the sample's columns name them" if named else "labels.classes: name the values in their order"
    )
    return LabelGuess(section if named else {**section, "classes": list(classes)}, classes, (reason, why))


def _delimited(column: str, cells: Sequence[str], sample: Sequence[str]) -> LabelGuess:
    section: dict[str, Any] = {"format": "delimited", "column": column}
    filled = [cell.strip() for cell in cells if cell.strip()]
    nothing = sorted({cell for cell in filled if means_nothing(cell)})
    kind = kind_of_cells(cells)
    if kind != "joined":
        section = {**section, "cells": kind, **({"empty_tokens": nothing} if nothing else {})}
        return _several(section, [cell for cell in filled if cell not in nothing], sample)
    separator = _separator(cells)
    counts = Counter(name for cell in cells for name in split_names(cell, separator))
    reasons = [
        f"labels: the cells of '{column}' hold {len(counts)} names, joined by {separator!r}: {listing(sorted(counts))}"
    ]
    if separator != " ":
        section["separator"] = separator
    alone = [
        name
        for name in counts
        if (_NOTHING.fullmatch(name) or means_nothing(name)) and sum(cell == name for cell in filled) == counts[name]
    ]
    if alone:
        section["empty_tokens"] = alone
        reasons.append(f"labels.empty_tokens: '{alone[0]}' is always alone in its cell and reads like no label at all")
    return LabelGuess(section, tuple(sorted(set(counts) - set(alone))), tuple(reasons))
