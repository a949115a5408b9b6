"""Delimited labels: all names of an image in one cell."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.competition.csvs import column_of, dialect_of, read_table
from pipeline.competition.labels.cells import MISSING, CellRules, settle_codes
from pipeline.competition.labels.rows import LabelledRows, Source, Targets, in_order, settle_labels
from pipeline.config import DelimitedLabels
from pipeline.errors import CompetitionError, listing
from pipeline.events import Note, ignore

_COMMON_SEPARATORS = ("|", ",", ";")
_GLUED = re.compile(r"""["']\s+["']""")


def read_delimited(config: DelimitedLabels, source: Source) -> LabelledRows:
    """Read a table with all names of an image in one cell.

    Raises:
        CompetitionError: a cell is not a list although `cells: list` is set, or holds an unknown name or key.
    """
    frame = source.table()
    cells = column_of(frame, config.column, path=source.path, key="competition.labels.column")
    ids = frame[source.competition.id].tolist()
    _check_separator(cells, config, source)
    rows = [_names_of(cell, id_, config, source) for cell, id_ in zip(cells, ids, strict=True)]
    rows = _without_empty_tokens(rows, config.empty_tokens, source)
    found: Sequence[str]
    if config.names is None:
        found = in_order({name for row in rows for name in row})
        _note_numbers(found, source)
    else:
        spelled = label_spelling(config, source)
        rows = _named(rows, ids, {key: name for name, key in spelled.items()}, source)
        found = tuple(spelled)
    labels = settle_labels(found, config.classes, source)
    codes = _multi_hot(rows, labels)
    codes[[not cell.strip() for cell in cells]] = MISSING
    targets = settle_codes(
        codes,
        labels,
        CellRules(missing=config.missing),
        name_cell=lambda row, column: f"{ids[row]}/{labels[column]}, blank",
        path=source.path,
        listen=source.listen if config.missing != "zeros" else ignore,
    )
    return LabelledRows(frame, labels, targets)


def split_names(cell: str, separator: str) -> list[str]:
    """The names in one delimited cell, without surrounding blanks; none for an empty cell."""
    return [name for name in (part.strip() for part in cell.split(separator)) if name]


def encode_delimited(
    decisions: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], labels: Sequence[str], separator: str
) -> list[str]:
    """One cell per row of `decisions` (N, K): the names with a 1, in label order, joined."""
    names = np.asarray(labels, dtype=object)
    return [separator.join(names[row.astype(bool)]) for row in decisions]


def _multi_hot(rows: Sequence[Iterable[str]], labels: Sequence[str]) -> Targets:
    """Multi-hot targets (N, K) of each row's names, all of which are in `labels`."""
    position = {name: index for index, name in enumerate(labels)}
    targets = np.zeros((len(rows), len(labels)), dtype=np.float32)
    for row, names in enumerate(rows):
        for name in names:
            targets[row, position[name]] = 1.0
    return targets


def parse_list(cell: str) -> list[str]:
    """The names in a cell that is a JSON or Python list of texts or whole numbers; none for a blank cell.

    Raises:
        ValueError: the cell is anything else, or a comma is missing: Python would join the two texts.
    """
    if not cell.strip():
        return []
    try:
        items = json.loads(cell)
    except (ValueError, RecursionError):
        if _GLUED.search(cell):
            raise ValueError("texts without a comma between them") from None
        try:
            items = ast.literal_eval(cell.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise ValueError("not a list") from None
    if not isinstance(items, list | tuple) or not all(type(item) in (str, int) for item in items):
        raise ValueError("not a list of texts or whole numbers")
    names = [str(item).strip() for item in items]
    if not all(names):
        raise ValueError("a blank name")
    return names


def label_spelling(config: DelimitedLabels, source: Source) -> dict[str, str]:
    """The text in a cell for each label, {name: key}, from the second CSV that `names` describes.

    Raises:
        CompetitionError: the file cannot be read, or gives two keys the same name.
    """
    assert config.names is not None
    path = source.root / config.names.file
    frame = read_table(
        path,
        id_column=config.names.key,
        key="competition.labels.names.file",
        dialect=dialect_of(source.competition),
        listen=source.listen,
    )
    values = column_of(frame, config.names.value, path=path, key="competition.labels.names.value")
    names = [name.strip() for name in values]
    keys = frame[config.names.key].tolist()
    if not all(names) or len(set(names)) < len(names):
        wrong = [key for key, name in zip(keys, names, strict=True) if not name or names.count(name) > 1]
        raise CompetitionError(
            f"{path}: column '{config.names.value}' does not give each key its own name",
            got=f"keys {listing(wrong)}",
            remedy="correct the file, or leave competition.labels.names out, so that the keys are the names",
        )
    return dict(zip(names, keys, strict=True))


def _names_of(cell: str, id_: str, config: DelimitedLabels, source: Source) -> list[str]:
    if config.cells == "joined" or cell.strip() in config.empty_tokens:
        return [cell.strip()] if cell.strip() in config.empty_tokens else split_names(cell, config.separator)
    try:
        return parse_list(cell)
    except ValueError as error:
        raise CompetitionError(
            f"{source.path}: the labels of '{id_}' are not written as a list: {error}",
            expected="""a list such as ['cat', 'dog'] or [3, 12]""",
            got=cell[:80],
            remedy="correct the cell, or set competition.labels.cells: joined",
        ) from None


def _without_empty_tokens(rows: list[list[str]], tokens: Sequence[str], source: Source) -> list[list[str]]:
    beside = sum(len(row) > 1 and any(name in tokens for name in row) for row in rows)
    if beside:
        source.listen(Note(f"{source.path}: {beside} cells hold names beside a token that means none; the names count"))
    return [[name for name in row if name not in tokens] for row in rows]


def _named(rows: list[list[str]], ids: Sequence[str], names: dict[str, str], source: Source) -> list[list[str]]:
    unknown = {key: id_ for row, id_ in zip(rows, ids, strict=True) for key in row if key not in names}
    if unknown:
        key, id_ = next(iter(unknown.items()))
        raise CompetitionError(
            f"{source.path}: {len(unknown)} keys of labels have no name, the first is '{key}' of '{id_}'",
            expected=f"keys out of {listing(names)}",
            remedy="correct competition.labels.names, the separator, or the file of names",
        )
    return [[names[key] for key in row] for row in rows]


def _check_separator(cells: Sequence[str], config: DelimitedLabels, source: Source) -> None:
    """Refuse lists, and note other separators: each such cell would become one label."""
    filled = [cell.strip() for cell in cells if cell.strip()]
    if config.cells == "joined" and filled and all(cell[0] == "[" and cell[-1] == "]" for cell in filled):
        raise CompetitionError(
            f"{source.path}: the cells of column '{config.column}' are lists, such as {filled[0][:60]}",
            remedy="set competition.labels.cells: list",
        )
    if config.cells == "joined" and not any(config.separator in cell for cell in filled):
        other = [mark for mark in _COMMON_SEPARATORS if any(mark in cell for cell in filled)]
        if other:
            source.listen(
                Note(
                    f"{source.path}: no cell of column '{config.column}' holds the separator '{config.separator}', "
                    f"but some hold '{other[0]}'; competition.labels.separator sets it"
                )
            )


def _note_numbers(found: Sequence[str], source: Source) -> None:
    """Note numbers among the names: boxes and scores would become labels."""
    numbers = [name for name in found if name.isdecimal()]
    if len(found) / 2 <= len(numbers) < len(found):
        others = [name for name in found if not name.isdecimal()]
        source.listen(
            Note(
                f"{source.path}: {len(numbers)} of {len(found)} labels are numbers ({listing(numbers, 3)}) and the "
                f"others names ({listing(others, 3)}); if the numbers are boxes or scores, give a table of names only"
            )
        )
