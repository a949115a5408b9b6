"""A competition's CSV as text cells: every cell a string, unique ids, and each mistake with its message."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.errors import CompetitionError, listing, nearest


def read_table(path: Path, *, id_column: str, key: str) -> pd.DataFrame:
    """A CSV with every cell as a string ("" where empty) and unique, non-blank ids in `id_column`.

    Args:
        path: the file, UTF-8 with or without a byte order mark.
        id_column: the column that must be there.
        key: the config key that names this file, for the error's remedy.

    Raises:
        CompetitionError: missing, not UTF-8, not a table, a repeated column name, no or duplicate ids.
    """
    header, *rows = _read_rows(path, key)
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise CompetitionError(
            f"{path}: the header repeats {listing(repeated)}", remedy="give each column a name of its own"
        )
    frame = pd.DataFrame(rows, columns=header, dtype=str)
    ids = list(column_of(frame, id_column, path=path, key="competition.id"))
    refuse_blank(ids, [f"row {row}" for row in range(1, len(ids) + 1)], path=path, column=id_column)
    duplicates = frame[id_column][frame[id_column].duplicated()].unique()
    if len(duplicates):
        raise CompetitionError(
            f"{path}: {len(duplicates)} ids occur more than once",
            expected=f"unique values in column '{id_column}'",
            got=listing(duplicates),
            remedy="keep one row per id, or set competition.id to the column that is unique",
        )
    if not ids:
        raise CompetitionError(f"{path}: the table has no rows", remedy="give the complete file")
    return frame


def _read_rows(path: Path, key: str) -> list[list[str]]:
    """The header and all other rows that are not blank, each as long as the header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(line, row) for line, row in enumerate(csv.reader(file, strict=True), start=1) if row]
    except FileNotFoundError:
        raise CompetitionError(
            f"{path}: no such file", remedy=f"put the file there, or correct competition.root or {key}"
        ) from None
    except UnicodeDecodeError as error:
        raise CompetitionError(f"{path}: not UTF-8: {error}", remedy="save the file as UTF-8") from None
    except (OSError, csv.Error) as error:
        raise CompetitionError(
            f"{path}: not readable as a CSV table: {error}", remedy=f"check the file or correct {key}"
        ) from None
    if not rows:
        raise CompetitionError(f"{path}: the file is empty", remedy="give the complete file")
    width = len(rows[0][1])
    uneven = [f"row {line} has {len(row)}" for line, row in rows if len(row) != width]
    if uneven:
        raise CompetitionError(
            f"{path}: not a table: {len(uneven)} rows are longer or shorter than the header",
            expected=f"{width} cells in every row",
            got=listing(uneven),
            remedy="quote cells that hold commas, and remove cells beyond the header",
        )
    return [row for _, row in rows]


def column_of(frame: pd.DataFrame, name: str, *, path: Path, key: str) -> list[str]:
    """The cells of column `name`; raises CompetitionError that names `key` where it is not there."""
    if name not in frame.columns:
        raise CompetitionError(
            f"{path}: there is no column '{name}'{nearest(name, frame.columns)}",
            expected=f"the column that {key} names",
            got=f"columns {listing(frame.columns, 12)}",
            remedy=f"correct {key} or the file",
        )
    return frame[name].tolist()


def refuse_blank(values: Sequence[str], rows: Sequence[str], *, path: Path, column: str) -> None:
    """Raise CompetitionError where a cell of `column` is blank; `rows` names the rows."""
    blank = [row for value, row in zip(values, rows, strict=True) if not value.strip()]
    if blank:
        raise CompetitionError(
            f"{path}: column '{column}' is empty in {len(blank)} rows: {listing(blank)}",
            remedy="fill these cells or remove the rows",
        )
