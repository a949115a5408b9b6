"""Long labels: one row per image and label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.competition.csvs import column_of
from pipeline.competition.labels.cells import MISSING, read_codes, rules_of, settle_codes
from pipeline.competition.labels.long_keys import find_suffixes, split_keys
from pipeline.competition.labels.rows import LabelledRows, Source, in_order, settle_labels
from pipeline.config import LongLabels
from pipeline.errors import CompetitionError, listing
from pipeline.events import Note


class _Entries(NamedTuple):
    """R rows of a long table: the id, the label ("" for none) and the text of the cell."""

    ids: list[str]
    names: list[str]
    cells: list[str]


def read_long(config: LongLabels, source: Source) -> LabelledRows:
    """Read a table with a row per image and label; images are in the order of their first rows.

    A note counts repeated rows. A label without a row is a missing cell, or a negative if every row is a positive.

    Raises:
        CompetitionError: rows disagree, an id cannot be separated from its label, or a label is unknown.
    """
    frame = source.cells()
    entries, labels = _entries(config, source, frame)
    ids, images = _numbered(entries.ids)
    position = {name: column for column, name in enumerate(labels)}
    columns = np.array([position.get(name, -1) for name in entries.names], dtype=np.int64)
    rules = rules_of(config)
    codes = read_codes(entries.cells, rules)
    stated = _first_rows(images, columns, (len(ids), len(labels)))
    _check_repeats(codes, images, columns, stated, entries, source)

    def name_cell(row: int, column: int) -> str:
        at = stated[row, column]
        return f"{ids[row]}/{labels[column]}" + (f" = '{entries.cells[at]}'" if at >= 0 else ", which has no row")

    absent = 0.0 if config.column is None else MISSING
    table = np.where(stated >= 0, codes[stated], np.float32(absent))
    targets = settle_codes(table, labels, rules, name_cell=name_cell, path=source.path, listen=source.listen)
    return LabelledRows(_one_row_each(frame, ids, images, config, source), labels, targets)


def _entries(config: LongLabels, source: Source, frame: pd.DataFrame) -> tuple[_Entries, tuple[str, ...]]:
    keys = frame[source.competition.id].tolist()
    cells = ["1"] * len(keys)
    if config.column is not None:
        cells = column_of(frame, config.column, path=source.path, key="competition.labels.column")
    if config.filled:
        nothing = {"", *config.empty_tokens}
        cells = ["0" if cell.strip() in nothing else "1" for cell in cells]
    if config.label_column is None:
        found = source.known or config.classes
        labels = settle_labels(found or find_suffixes(keys, config.separator, source.path), config.classes, source)
        ids, names = split_keys(keys, labels, config.separator, path=source.path, listen=source.listen)
        return _Entries(ids, names, cells), labels
    column = column_of(frame, config.label_column, path=source.path, key="competition.labels.label_column")
    names = ["" if name.strip() in config.empty_tokens else name.strip() for name in column]
    labels = settle_labels(in_order(set(names) - {""}), config.classes, source)
    return _Entries(keys, names, cells), labels


def _numbered(ids: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The N distinct ids in the order of their first row, and the number (R,) of each row's id."""
    numbers, distinct = pd.factorize(np.array(ids, dtype=object))
    return distinct.tolist(), numbers.astype(np.int64)


def _first_rows(images: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """(N, K) the first row of each cell, -1 if it has no row."""
    stated = np.full(shape, -1, dtype=np.int64)
    rows = np.flatnonzero(columns >= 0)[::-1]  # the last assignment wins
    stated[images[rows], columns[rows]] = rows
    return stated


def _check_repeats(
    codes: NDArray[np.float32],
    images: NDArray[np.int64],
    columns: NDArray[np.int64],
    stated: NDArray[np.int64],
    entries: _Entries,
    source: Source,
) -> None:
    rows = np.flatnonzero(columns >= 0)
    first = stated[images[rows], columns[rows]]
    repeats = rows != first
    disagree = codes[rows] != codes[first]
    if disagree.any():
        named = [
            f"{entries.ids[row]}/{entries.names[row]}: '{entries.cells[at]}' and '{entries.cells[row]}'"
            for row, at in zip(rows[disagree].tolist(), first[disagree].tolist(), strict=True)
        ]
        raise CompetitionError(
            f"{source.path}: {len(named)} rows contradict an earlier row of the same image and label",
            expected="one value for each image and label",
            got=listing(named),
            remedy="remove the wrong rows",
        )
    if repeats.any():
        source.listen(Note(f"{source.path}: {int(repeats.sum())} rows repeat another row and count once"))


def _one_row_each(
    frame: pd.DataFrame, ids: list[str], images: NDArray[np.int64], config: LongLabels, source: Source
) -> pd.DataFrame:
    """A row per image, with the columns that are equal in all rows of each image; a note names the others."""
    own = {source.competition.id, config.column, config.label_column}
    others = frame[[name for name in frame.columns if name not in own]]
    first = others.groupby(images, sort=True).first() if len(others.columns) else pd.DataFrame(index=range(len(ids)))
    changing = [name for name in others.columns if (others[name].to_numpy() != first[name].to_numpy()[images]).any()]
    if changing:
        source.listen(
            Note(f"{source.path}: columns that differ between the rows of an image are ignored: {listing(changing)}")
        )
    kept = first.drop(columns=changing).reset_index(drop=True)
    kept.insert(0, source.competition.id, ids)
    return kept
