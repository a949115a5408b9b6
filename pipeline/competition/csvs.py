"""A competition's CSV as text cells: every cell a string, unique ids, and each mistake with its message."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from pipeline.competition.notes import Tell, tell_nobody
from pipeline.competition.text import read_text
from pipeline.config import CompetitionConfig
from pipeline.errors import CompetitionError, listing, nearest

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons"}
_UNNAMED = re.compile(r"\s*(Unnamed: \d+)?\s*")
_Rows = list[list[str]]


@dataclass(frozen=True)
class Dialect:
    """How a CSV is written.

    Attributes:
        encoding: None to find it.
        delimiter: one character, or `auto`: comma, tab or semicolon, whichever gives the header its id column.
        quoting: `standard`, or `none`: quotes are letters like others and the last column takes the rest of a line.
    """

    encoding: str | None = None
    delimiter: str = "auto"
    quoting: Literal["standard", "none"] = "standard"


def dialect_of(competition: CompetitionConfig) -> Dialect:
    """How the files of this competition are written."""
    return Dialect(competition.encoding, competition.delimiter, competition.quoting)


_USUAL = Dialect()


def read_table(
    path: Path, *, id_column: str, key: str, dialect: Dialect = _USUAL, tell: Tell = tell_nobody
) -> pd.DataFrame:
    """As `read_cells`, with unique ids.

    Raises:
        CompetitionError: as `read_cells`, and for duplicate ids.
    """
    frame = read_cells(path, id_column=id_column, key=key, dialect=dialect, tell=tell)
    duplicates = frame[id_column][frame[id_column].duplicated()].unique()
    if len(duplicates):
        raise CompetitionError(
            f"{path}: {len(duplicates)} ids occur more than once",
            expected=f"unique values in column '{id_column}'",
            got=listing(duplicates),
            remedy="keep one row per id, or set competition.id to the column that is unique; a table with a row "
            "per id and label has labels.format: long",
        )
    return frame


def read_cells(
    path: Path, *, id_column: str, key: str, dialect: Dialect = _USUAL, tell: Tell = tell_nobody
) -> pd.DataFrame:
    """A CSV with every cell as a string ("" where empty) and non-blank ids in `id_column`, blanks around them off.

    Blank rows, blank cells beyond the header and columns without a name are left out.

    Args:
        path: the file.
        id_column: the column that must be there.
        key: the config key that names this file, for the error's remedy.
        dialect: how it is written.
        tell: hears what was guessed or left out.

    Raises:
        CompetitionError: missing, not decodable, not a table, a repeated column name, no rows, no id.
    """
    header, rows = _read_rows(path, id_column, key, dialect, tell)
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise CompetitionError(
            f"{path}: the header repeats {listing(repeated)}", remedy="give each column a name of its own"
        )
    frame = pd.DataFrame(rows, columns=header, dtype=str)
    ids = [id_.strip() for id_ in column_of(frame, id_column, path=path, key="competition.id")]
    refuse_blank(ids, [f"row {row}" for row in range(1, len(ids) + 1)], path=path, column=id_column)
    if not ids:
        raise CompetitionError(f"{path}: the table has no rows", remedy="give the complete file")
    frame[id_column] = ids
    return frame


def read_header(path: Path, *, id_column: str, key: str, dialect: Dialect, tell: Tell) -> tuple[str, ...]:
    """The names of a CSV's columns; raises CompetitionError as `read_cells`, but for the ids and rows."""
    return tuple(_read_rows(path, id_column, key, dialect, tell)[0])


def _read_rows(path: Path, id_column: str, key: str, dialect: Dialect, tell: Tell) -> tuple[list[str], _Rows]:
    """The header and the rows that are not blank, each as long as the header."""
    text = read_text(path, key=key, encoding=dialect.encoding, tell=tell)
    try:
        delimiter = _delimiter(text, id_column, path, dialect, tell)
        written = [row for row in _split(text, delimiter, dialect) if row]
    except csv.Error as error:
        raise CompetitionError(
            f"{path}: not readable as a CSV table: {error}",
            remedy=f"check the file or correct {key}; where quotes stand unescaped in a text, set "
            "competition.quoting: none",
        ) from None
    rows = [row for row in written if any(cell.strip() for cell in row)]
    if not rows:
        raise CompetitionError(f"{path}: the file is empty", remedy="give the complete file")
    if len(rows) < len(written):
        tell(f"{path}: {len(written) - len(rows)} rows of blank cells are left out")
    header, *rows = rows
    named = len(header)
    while named and not header[named - 1].strip() and not any(_cell(row, named - 1).strip() for row in rows):
        named -= 1
    _refuse_uneven(rows, named, path)
    _tell_of_line_ends(rows, path, tell)
    return _without_unnamed(header[:named], [row[:named] for row in rows], id_column, path, tell)


def _split(text: str, delimiter: str, dialect: Dialect) -> Iterable[list[str]]:
    if dialect.quoting == "standard":
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    header = lines[0].rstrip(delimiter).split(delimiter) if lines else []
    yield header
    for line in lines[1:]:
        yield line.split(delimiter, len(header) - 1)


def _delimiter(text: str, id_column: str, path: Path, dialect: Dialect, tell: Tell) -> str:
    if dialect.delimiter != "auto":
        return dialect.delimiter
    headers = {mark: _first_row(text, mark, dialect) for mark in _DELIMITERS}
    fitting = [mark for mark in headers if id_column in headers[mark]] or list(headers)
    best = max(fitting, key=lambda mark: len(headers[mark]))  # the comma, which stands first, where none is better
    if best != ",":
        tell(f"{path}: the columns are separated by {_DELIMITERS[best]}")
    return best


def _first_row(text: str, delimiter: str, dialect: Dialect) -> list[str]:
    try:
        return next((row for row in _split(text, delimiter, dialect) if any(cell.strip() for cell in row)), [])
    except csv.Error:  # quotes that only another delimiter makes sense of
        return []


def _cell(row: Sequence[str], place: int) -> str:
    return row[place] if place < len(row) else ""


def _refuse_uneven(rows: _Rows, width: int, path: Path) -> None:
    uneven = [
        f"row {number} has {len(row)}"
        for number, row in enumerate(rows, start=2)
        if len(row) < width or (len(row) > width and any(cell.strip() for cell in row[width:]))
    ]
    if uneven:
        raise CompetitionError(
            f"{path}: not a table: {len(uneven)} rows are longer or shorter than the header",
            expected=f"{width} cells in every row",
            got=listing(uneven),
            remedy="quote cells that hold the delimiter and remove cells beyond the header; where quotes stand "
            "unescaped in the last column, set competition.quoting: none",
        )


def _tell_of_line_ends(rows: _Rows, path: Path, tell: Tell) -> None:
    """A quote that is never closed swallows the rows up to the next one; a long text is no fault."""
    broken = [number for number, row in enumerate(rows, start=2) if any("\n" in cell for cell in row)]
    if broken:
        tell(
            f"{path}: quoted cells of {len(broken)} rows span several lines (row {listing(broken)}); "
            "if rows are missing, set competition.quoting: none"
        )


def _without_unnamed(header: list[str], rows: _Rows, id_column: str, path: Path, tell: Tell) -> tuple[list[str], _Rows]:
    """Drop an index column that pandas wrote, and others that nobody could name."""
    kept = [place for place, name in enumerate(header) if name == id_column or not _UNNAMED.fullmatch(name)]
    if len(kept) == len(header):
        return header, rows
    tell(f"{path}: {len(header) - len(kept)} columns without a name are ignored")
    return [header[place] for place in kept], [[row[place] for place in kept] for row in rows]


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
