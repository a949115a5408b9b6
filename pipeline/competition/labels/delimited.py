"""Delimited labels: all names of an image in one cell, or one name in each of several columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.competition.csvs import column_of, dialect_of, read_table
from pipeline.competition.labels.cells import MISSING, CellRules, settle_codes
from pipeline.competition.labels.list_cells import (
    holds_list,
    holds_object,
    holds_vector,
    kind_of_cells,
    means_nothing,
    parse_list,
    parse_vector,
)
from pipeline.competition.labels.rows import LabelledRows, Source, Targets, in_order, settle_labels
from pipeline.config import ColumnsLabels, DelimitedLabels
from pipeline.errors import CompetitionError, listing, repeated_names
from pipeline.events import Note, ignore

_COMMON_SEPARATORS = ("|", ",", ";")
_WRITTEN = {"joined": "joined names", "list": "lists", "vector": "vectors with a 0 or 1 for each label"}


def read_delimited(config: DelimitedLabels, source: Source) -> LabelledRows:
    """Read a table with all names of an image in one cell, or a 0 or 1 for each label.

    Raises:
        CompetitionError: cells are not written as `cells` says, or hold an unknown name or key.
    """
    frame = source.table()
    written = column_of(frame, config.column, path=source.path, key="competition.labels.column")
    ids = frame[source.competition.id].tolist()
    cells = ["" if cell.strip() in config.empty_tokens else cell for cell in written]
    _check_kind(cells, config, source)
    _check_separator(cells, config, source)
    if config.cells == "vector":
        rows, labels = _read_vectors(cells, ids, config, source)
    else:
        rows = [_names_of(cell, id_, config, source) for cell, id_ in zip(cells, ids, strict=True)]
        rows = _without_empty_tokens(rows, config.empty_tokens, source)
        if config.names is None:
            labels = settle_labels(in_order({name for row in rows for name in row}), config.classes, source)
            _note_numbers(labels, source)
        else:
            spelled = label_spelling(config, source)
            rows = _named(rows, ids, {key: name for name, key in spelled.items()}, source)
            labels = settle_labels(tuple(spelled), config.classes, source)
    unknown = [not cell.strip() for cell in written]
    return LabelledRows(frame, labels, _settled(rows, labels, unknown, ids, config, source))


def read_columns(config: ColumnsLabels, source: Source) -> LabelledRows:
    """Read a table with several columns of names, such as label_1 and label_2. Raises as `read_delimited`."""
    frame = source.table()
    columns = [column_of(frame, name, path=source.path, key="competition.labels.columns") for name in config.columns]
    nothing = {"", *config.empty_tokens}
    cells = list(zip(*columns, strict=True))
    rows = [[name for name in map(str.strip, row) if name not in nothing] for row in cells]
    labels = settle_labels(in_order({name for row in rows for name in row}), config.classes, source)
    unknown = [not any(cell.strip() for cell in row) for row in cells]
    ids = frame[source.competition.id].tolist()
    return LabelledRows(frame, labels, _settled(rows, labels, unknown, ids, config, source))


def _settled(
    rows: Sequence[Iterable[str]],
    labels: tuple[str, ...],
    unknown: list[bool],
    ids: Sequence[str],
    config: DelimitedLabels | ColumnsLabels,
    source: Source,
) -> Targets:
    """Targets (N, K) of each row's names; `unknown` rows get the value that `missing` sets."""
    codes = _multi_hot(rows, labels)
    codes[unknown] = MISSING
    return settle_codes(
        codes,
        labels,
        CellRules(missing=config.missing),
        name_cell=lambda row, column: f"{ids[row]}/{labels[column]}, blank",
        path=source.path,
        listen=source.listen if config.missing != "zeros" else ignore,
    )


def split_names(cell: str, separator: str) -> list[str]:
    """The names in one delimited cell, without surrounding blanks; none for an empty cell."""
    return [name for name in (part.strip() for part in cell.split(separator)) if name]


def _multi_hot(rows: Sequence[Iterable[str]], labels: Sequence[str]) -> Targets:
    """Multi-hot targets (N, K) of each row's names, all of which are in `labels`."""
    position = {name: index for index, name in enumerate(labels)}
    targets = np.zeros((len(rows), len(labels)), dtype=np.float32)
    for row, names in enumerate(rows):
        for name in names:
            targets[row, position[name]] = 1.0
    return targets


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
        twice = {"", *repeated_names(names)}
        wrong = [key for key, name in zip(keys, names, strict=True) if name in twice]
        raise CompetitionError(
            f"{path}: column '{config.names.value}' does not give each key its own name",
            got=f"keys {listing(wrong)}",
            remedy="correct the file, or leave competition.labels.names out, so that the keys are the names",
        )
    return dict(zip(names, keys, strict=True))


def _names_of(cell: str, id_: str, config: DelimitedLabels, source: Source) -> list[str]:
    if config.cells == "joined":
        if config.classes is None and (holds_list(cell) or holds_object(cell)):
            problem = "it is a list" if holds_list(cell) else "it is an object with keys and values"
            raise _wrong_cell(cell, id_, problem, "text", "names joined by a separator", source)
        return split_names(cell, config.separator)
    try:
        return parse_list(cell)
    except ValueError as error:
        raise _wrong_cell(
            cell, id_, str(error), "list", """a list such as ['cat', 'dog'] or [3, 12]""", source
        ) from None


def _read_vectors(
    cells: Sequence[str], ids: Sequence[str], config: DelimitedLabels, source: Source
) -> tuple[list[list[str]], tuple[str, ...]]:
    """The names of each row with a 1 at their place, and all labels.

    The labels are those of dicts, else the classes, or the columns of a wide sample.
    """
    expected = "a value for each label, such as [0, 1, 1] or 0 1 1"
    found: list[dict[str, float] | list[float]] = []
    for cell, id_ in zip(cells, ids, strict=True):
        try:
            found.append(parse_vector(cell))
        except ValueError as error:
            raise _wrong_cell(cell, id_, str(error), "vector", expected, source) from None
    first = next((row for row in found if row), [])
    if isinstance(first, dict):
        labels = settle_labels(tuple(first), config.classes, source)
    else:
        labels = source.known or tuple(config.classes or (source.sample if len(source.sample) > 1 else ()))
    if not labels:
        names = listing((f"class_{number}" for number in range(len(first))), 100)
        raise CompetitionError(
            f"{source.path}: the names of the {len(first)} labels in column '{config.column}' are not known",
            remedy=f"name them in the order of the values: competition.labels.classes: [{names}]",
        )
    rows = []
    for values, cell, id_ in zip(found, cells, ids, strict=True):
        named = values if isinstance(values, dict) else dict(zip(labels, values, strict=False))
        if values and (len(values) != len(labels) or not named.keys() <= set(labels)):
            got, expected = f"{len(values)} values", f"{len(labels)} values, for {listing(labels, 12)}"
            raise _wrong_cell(cell, id_, got, "vector", expected, source)
        rows.append([name for name, value in named.items() if value])
    return rows, labels


def _wrong_cell(cell: str, id_: str, problem: str, kind: str, expected: str, source: Source) -> CompetitionError:
    remedy = "correct the cell in the table"
    if means_nothing(cell):
        remedy = f"if this means no labels, set competition.labels.empty_tokens: ['{cell.strip()}']"
    elif kind == "vector" and cell.strip().isdecimal():
        remedy += "; if zeros in front were lost, write the column as text again"
    return CompetitionError(
        f"{source.path}: the labels of '{id_}' are not written as a {kind}: {problem}",
        expected=expected,
        got=cell[:80],
        remedy=remedy,
    )


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


def _check_kind(cells: Sequence[str], config: DelimitedLabels, source: Source) -> None:
    """Raise CompetitionError if the cells are written in another way than `cells` says: they would become names."""
    kind = kind_of_cells(cells)
    fits = kind == config.cells or (config.cells == "vector" and any(map(holds_vector, cells)))
    if not fits and any(cell.strip() for cell in cells) and not _are_classes(cells, config):
        filled = next(cell.strip() for cell in cells if cell.strip() and not means_nothing(cell))
        remedy = f"set competition.labels.cells: {kind}"
        if kind == "vector" and config.classes is None and len(source.sample) < 2:
            remedy += ", and competition.labels.classes to the names of the labels in the order of the values"
        raise CompetitionError(
            f"{source.path}: the cells of column '{config.column}' are {_WRITTEN[kind]}, such as {filled[:60]}",
            expected=f"{_WRITTEN[config.cells]} (competition.labels.cells: {config.cells})",
            remedy=remedy,
        )


def _are_classes(cells: Sequence[str], config: DelimitedLabels) -> bool:
    """Whether the cells are names in `classes`, although they might be vectors."""
    if config.classes is None or config.cells == "vector":
        return False
    try:
        rows = [split_names(cell, config.separator) if config.cells == "joined" else parse_list(cell) for cell in cells]
    except ValueError:
        return False
    return all(set(row) <= set(config.classes) and len(set(row)) == len(row) for row in rows)


def _check_separator(cells: Sequence[str], config: DelimitedLabels, source: Source) -> None:
    """Note other separators: each such cell would become one label."""
    filled = [cell.strip() for cell in cells if cell.strip()]
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
