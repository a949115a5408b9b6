"""A competition's CSV as text cells: finds encoding and delimiter, requires an id in every row, explains each fault."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import pandas as pd

from pipeline.config import CompetitionConfig
from pipeline.errors import CompetitionError, listing, nearest, repeated_names
from pipeline.events import Listener, Note, ignore
from pipeline.machine import regular

_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons"}
_UNNAMED = re.compile(r"\s*(Unnamed: \d+)?\s*")
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_ENCODING_NAMES = {"cp949": "CP949 (Korean)", "cp1252": "Windows-1252 (Latin-1)", "latin-1": "Latin-1"}
_UNWRITABLE = re.compile("[\r\ud800-\udfff]")
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_Rows = list[list[str]]


@dataclass(frozen=True)
class Dialect:
    """The encoding, delimiter and quoting of a CSV.

    Attributes:
        encoding: None to find it.
        delimiter: one character, or `auto`: comma, tab or semicolon, the one whose header has the id column.
        quoting: `standard`, or `none`: quotes are plain characters, and the last column takes the rest of a line.
        exact: keep the file's own Unicode form, see `read_text`.
        header: the names of the columns of a file without a header; None if its first row has them.
    """

    encoding: str | None = None
    delimiter: str = "auto"
    quoting: Literal["standard", "none"] = "standard"
    exact: bool = False
    header: tuple[str, ...] | None = None


def dialect_of(competition: CompetitionConfig) -> Dialect:
    """The dialect of this competition's files."""
    return Dialect(competition.encoding, competition.delimiter, competition.quoting)


_USUAL = Dialect()


def read_table(
    path: Path, *, id_column: str, key: str, dialect: Dialect = _USUAL, listen: Listener = ignore
) -> pd.DataFrame:
    """Read a CSV as `read_cells` does, and require unique ids; rows that repeat another one whole count once.

    Raises:
        CompetitionError: as `read_cells`, or an id occurs more than once.
    """
    frame = read_cells(path, id_column=id_column, key=key, dialect=dialect, listen=listen)
    return with_unique_ids(frame, id_column, path, listen)


def with_unique_ids(frame: pd.DataFrame, id_column: str, path: Path, listen: Listener) -> pd.DataFrame:
    """The frame with rows that are equal in all cells once. Raises CompetitionError if an id still repeats."""
    if frame[id_column].is_unique:
        return frame
    again = frame.duplicated()
    if again.any():
        frame = frame[~again].reset_index(drop=True)
        listen(Note(f"{path}: {int(again.sum())} rows repeat another row in all cells and count once"))
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
    path: Path, *, id_column: str, key: str, dialect: Dialect = _USUAL, listen: Listener = ignore
) -> pd.DataFrame:
    """Read a CSV with every cell as a string ("" where empty); ids and the header lose surrounding blanks.

    Blank rows, blank cells beyond the header and columns without a name are left out.

    Args:
        path: the file.
        id_column: a column that the file must have.
        key: the config key of this file, for the error's remedy.
        dialect: how it is written.
        listen: gets a note on each guess and on what is left out.

    Raises:
        CompetitionError: the file is missing, cannot be decoded or is no table, a column name repeats, there are no
            rows, or an id is blank.
    """
    header, rows = _read_rows(path, id_column, key, dialect, listen)
    repeated = repeated_names(header)
    if repeated:
        raise CompetitionError(
            f"{path}: the header repeats {listing(repeated)}", remedy="give each column its own name"
        )
    columns = zip(*rows, strict=True) if rows else ([] for _ in header)  # one at a time, as it is converted
    frame = pd.DataFrame({name: pd.Series(cells, dtype=str) for name, cells in zip(header, columns, strict=True)})
    ids = [id_.strip() for id_ in column_of(frame, id_column, path=path, key="competition.id")]
    refuse_unwritable(ids, path=path, kind="ids")
    refuse_blank(ids, [f"row {row}" for row in range(1, len(ids) + 1)], path=path, column=id_column)
    if not ids:
        raise CompetitionError(f"{path}: the table has no rows", remedy="give the complete file")
    frame[id_column] = ids
    return frame


def read_header(path: Path, *, id_column: str, key: str, dialect: Dialect, listen: Listener) -> tuple[str, ...]:
    """The column names of a CSV. Raises CompetitionError as `read_cells`, except for ids and rows."""
    return tuple(_read_rows(path, id_column, key, dialect, listen)[0])


def read_text(path: Path, *, key: str, encoding: str | None, listen: Listener, exact: bool = False) -> str:
    """The text of a file, without a byte order mark, in the Unicode form NFC: a Mac writes the same names in NFD.

    Args:
        path: the file.
        key: the config key of this file, for the remedy.
        encoding: its encoding; None to find it: UTF-8, otherwise CP949 or Latin-1.
        listen: gets a note where the encoding is not UTF-8 and was guessed.
        exact: keep the file's own Unicode form.

    Raises:
        CompetitionError: the file is missing, unreadable, not in the given encoding, or not text.
    """
    try:
        data = regular(path).read_bytes()
    except FileNotFoundError:
        raise CompetitionError(
            f"{path}: no such file", remedy=f"put the file there, or correct competition.root or {key}"
        ) from None
    except OSError as error:
        raise CompetitionError(
            f"{path}: not readable: {error.strerror}", remedy=f"check the file or correct {key}"
        ) from None
    text = _decode(data, path, encoding, listen)
    if "\0" in text:
        raise CompetitionError(
            f"{path}: not a text file, it holds zero bytes", remedy=f"save the table as CSV in UTF-8, or correct {key}"
        )
    text = text.removeprefix("\ufeff")
    return text if exact else normalize("NFC", text)


def _decode(data: bytes, path: Path, encoding: str | None, listen: Listener) -> str:
    marked = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    try:
        return data.decode(marked or encoding or "utf-8")
    except UnicodeError as error:
        if encoding is not None or marked is not None:
            raise CompetitionError(
                f"{path}: not {marked or encoding}: {error}", remedy="set competition.encoding, or save it as UTF-8"
            ) from None
    found = guess_encoding(data)
    listen(Note(f"{path} is not UTF-8 and was read as {_ENCODING_NAMES[found]}; competition.encoding sets another"))
    return data.decode(found)


def guess_encoding(data: bytes) -> str:
    """`cp949`, `cp1252` or `latin-1`, for bytes that are not UTF-8.

    Nearly all letters of Korean text are among the 2,350 common syllables of KS X 1001. Accented Latin letters are
    single bytes among ASCII: read as Korean they are invalid, or give other syllables.
    """
    try:
        letters = [letter for letter in data.decode("cp949") if not letter.isascii()]
    except UnicodeDecodeError:
        letters = []
    common = sum(_is_common_syllable(letter) for letter in letters)
    if letters and 2 * common >= len(letters):
        return "cp949"
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:  # cp1252 leaves five bytes undefined
        return "latin-1"
    return "cp1252"


def _is_common_syllable(letter: str) -> bool:
    # EUC-KR writes a common syllable in two bytes, others in eight.
    return "가" <= letter <= "힣" and len(letter.encode("euc_kr")) == 2


def _read_rows(path: Path, id_column: str, key: str, dialect: Dialect, listen: Listener) -> tuple[list[str], _Rows]:
    """The header and all rows that are not blank, cut to the length of the header."""
    text = read_text(path, key=key, encoding=dialect.encoding, listen=listen, exact=dialect.exact)
    try:
        delimiter = _delimiter(text, id_column, path, dialect, listen)
        written = [row for row in _split(text, delimiter, dialect) if row]
    except csv.Error as error:
        raise CompetitionError(
            f"{path}: not readable as a CSV table: {error}",
            remedy=f"check the file or correct {key}; if a text holds unescaped quotes, set competition.quoting: none",
        ) from None
    rows = [row for row in written if any(cell.strip() for cell in row)]
    if not rows:
        raise CompetitionError(f"{path}: the file is empty", remedy="give the complete file")
    if len(rows) < len(written):
        listen(Note(f"{path}: {len(written) - len(rows)} rows of blank cells are left out"))
    header, *rows = rows if dialect.header is None else [list(dialect.header), *rows]
    header = header if dialect.exact else [name.strip() for name in header]
    named = len(header)
    while named and not header[named - 1].strip() and not any(_cell(row, named - 1).strip() for row in rows):
        named -= 1
    _refuse_uneven(rows, named, path, dialect)
    _note_line_ends(rows, path, dialect, listen)
    for row in rows:
        del row[named:]
    return _without_unnamed(header[:named], rows, id_column, path, listen)


def _split(text: str, delimiter: str, dialect: Dialect) -> Iterable[list[str]]:
    if dialect.quoting == "standard":
        whole = (line[0] for line in _LINE.finditer(text))  # io.StringIO takes four bytes for each character
        yield from csv.reader(whole, delimiter=delimiter, strict=True)
        return
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    header = lines[0].rstrip(delimiter).split(delimiter) if lines else []
    width = len(dialect.header or header)
    yield header
    row: list[str] = []
    for line in lines[1:]:
        cells = line.split(delimiter, width - 1)
        if row and len(cells) < width:  # the last text spans several lines
            row[-1] = f"{row[-1]}\n{line}"
            continue
        if row:
            yield row
        row = cells
    if row:
        yield row


def _delimiter(text: str, id_column: str, path: Path, dialect: Dialect, listen: Listener) -> str:
    if dialect.delimiter != "auto":
        return dialect.delimiter
    headers = {mark: [name.strip() for name in _first_row(text, mark, dialect)] for mark in _DELIMITERS}
    fitting = [mark for mark in headers if id_column in headers[mark]] or list(headers)
    best = max(fitting, key=lambda mark: len(headers[mark]))  # the first, the comma, on a tie
    if best != ",":
        listen(Note(f"{path}: the columns are separated by {_DELIMITERS[best]}"))
    return best


def _first_row(text: str, delimiter: str, dialect: Dialect) -> list[str]:
    try:
        return next((row for row in _split(text, delimiter, dialect) if any(cell.strip() for cell in row)), [])
    except csv.Error:  # the quotes fit another delimiter only
        return []


def _cell(row: Sequence[str], place: int) -> str:
    return row[place] if place < len(row) else ""


def _refuse_uneven(rows: _Rows, width: int, path: Path, dialect: Dialect) -> None:
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
            remedy="quote cells that hold the delimiter and remove cells beyond the header"
            + (
                "; if the last column holds unescaped quotes, set competition.quoting: none"
                if dialect.quoting == "standard"
                else ""
            ),
        )


def _note_line_ends(rows: _Rows, path: Path, dialect: Dialect, listen: Listener) -> None:
    """Note cells over several lines: a quote that is never closed swallows rows, but a long text is no fault."""
    broken = [number for number, row in enumerate(rows, start=2) if "\n" in "".join(row)]
    if broken:
        listen(
            Note(
                f"{path}: cells of {len(broken)} rows span several lines (row {listing(broken)})"
                + ("; if rows are missing, set competition.quoting: none" if dialect.quoting == "standard" else "")
            )
        )


def _without_unnamed(
    header: list[str], rows: _Rows, id_column: str, path: Path, listen: Listener
) -> tuple[list[str], _Rows]:
    """Drop columns without a name, such as the index column that pandas writes."""
    kept = [place for place, name in enumerate(header) if name == id_column or not _UNNAMED.fullmatch(name)]
    if len(kept) == len(header):
        return header, rows
    listen(Note(f"{path}: {len(header) - len(kept)} columns without a name are ignored"))
    return [header[place] for place in kept], [[row[place] for place in kept] for row in rows]


def column_of(frame: pd.DataFrame, name: str, *, path: Path, key: str) -> list[str]:
    """The cells of column `name`. Raises CompetitionError with the config key `key` if the column is missing."""
    if name not in frame.columns:
        raise CompetitionError(
            f"{path}: there is no column '{name}'{nearest(name, frame.columns)}",
            expected=f"the column that {key} names",
            got=f"columns {listing(frame.columns, 12)}",
            remedy=f"correct {key} or the file",
        )
    return frame[name].tolist()


def refuse_unwritable(names: Iterable[str], *, path: Path, kind: str) -> None:
    """Raise CompetitionError for a name that a CSV in UTF-8 does not give back: with a carriage return, or half a pair.

    Args:
        names: ids or labels.
        path: where they are from.
        kind: of the names, in the plural.
    """
    bad = [ascii(name) for name in names if _UNWRITABLE.search(name)]
    if bad:
        raise CompetitionError(
            f"{path}: {len(bad)} {kind} hold a carriage return or half of a character",
            got=listing(bad),
            remedy=f"write these {kind} without it, in all tables",
        )


def refuse_blank(values: Sequence[str], rows: Sequence[str], *, path: Path, column: str) -> None:
    """Raise CompetitionError if a cell of `column` is blank; `rows` names the rows."""
    blank = [row for value, row in zip(values, rows, strict=True) if not value.strip()]
    if blank:
        raise CompetitionError(
            f"{path}: column '{column}' is empty in {len(blank)} rows: {listing(blank)}",
            remedy="fill these cells or remove the rows",
        )
