"""The validator: finds, with line numbers, everything for which a scorer rejects a file.

It reads bytes, then text, then rows, then checks header, ids and cells. It stops at the first step that fails, so that
a file that is not UTF-8 has one error and not a thousand.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.competition.submission.checks import CELL_CHECKS, header_errors, id_errors
from pipeline.competition.submission.format import SubmissionFormat
from pipeline.competition.submission.sample import Sample
from pipeline.errors import SubmissionError, listing
from pipeline.machine import regular

USUAL_NAME = "submission.csv"
_SHOWN = 3


class Findings(NamedTuple):
    """The errors of a submission, and the warnings on what may be wrong: one sentence per problem."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class Line(NamedTuple):
    """A row of the file and the line it begins on."""

    number: int
    cells: list[str]


def validate_submission(path: Path, sample: Sample, form: SubmissionFormat, *, name: str | None = None) -> Findings:
    """Find out why a scorer would reject the file at `path`.

    Args:
        path: the file.
        sample: its header, ids and order are required.
        form: the format of its cells.
        name: the later name of the file, if that differs from `path`.

    Raises:
        SubmissionError: the file cannot be read.
    """
    try:
        data = regular(path).read_bytes()
    except OSError as error:
        raise SubmissionError(f"{path} cannot be read: {error.strerror}", remedy="give the path of a CSV") from None
    called = path.name if name is None else name
    warnings = [f"the file is called {called}; most scorers ask for {USUAL_NAME}"] if called != USUAL_NAME else []
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        return Findings((f"it is not UTF-8 (line {line}, byte {error.start})",), tuple(warnings))
    errors = []
    if text.startswith("\ufeff"):
        errors.append("it starts with a byte order mark, which some scorers take for a part of the first column's name")
        text = text.removeprefix("\ufeff")
    if text and not text.endswith("\n"):
        warnings.append("the last line has no line end: the file may have been cut off")
    lines, blank, broken = _read_lines(text)
    if blank:
        warnings.append(f"{len(blank)} lines are blank ({_lines(blank)})")
    found = _row_findings(lines, sample, form)
    return Findings((*errors, *broken, *found.errors), (*warnings, *found.warnings))


def _read_lines(text: str) -> tuple[list[Line], list[int], list[str]]:
    """The rows, the numbers of blank lines, and the error that ended the reading, if any."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines, blank, begin = [], [], 1
    try:
        for cells in reader:
            if cells:
                lines.append(Line(begin, cells))
            else:
                blank.append(begin)
            begin = reader.line_num + 1
    except csv.Error as error:
        return lines, blank, [f"it is no CSV from line {begin} on: {error}"]
    return lines, blank, []


def _row_findings(lines: Sequence[Line], sample: Sample, form: SubmissionFormat) -> Findings:
    if not lines:
        return Findings(("it is empty",))
    header, *rows = lines
    sample = sample.as_written()
    errors = header_errors(header.cells, sample.columns)
    if errors:
        return Findings(tuple(errors))
    uneven = [row.number for row in rows if len(row.cells) != len(sample.columns)]
    if uneven:
        problem = f"{len(uneven)} rows do not have {len(sample.columns)} cells ({_lines(uneven)})"
        return Findings((problem,))
    place = sample.columns.index(sample.id_column)
    errors = id_errors([(row.number, row.cells[place]) for row in rows], sample)
    return Findings((*errors, *_cell_errors(rows, sample, form)), tuple(_empty_warnings(rows, form)))


def _cell_errors(rows: Sequence[Line], sample: Sample, form: SubmissionFormat) -> list[str]:
    """One sentence per kind of fault, with the first places."""
    check = CELL_CHECKS[form.kind]
    places: dict[str, list[str]] = defaultdict(list)
    for column, name in enumerate(sample.columns):
        if name == sample.id_column:
            continue
        if name in form.constants:
            wrong = [row for row in rows if row.cells[column] != form.constants[name]]
            if wrong:
                places[f"not the constant '{form.constants[name]}'"] += [f"line {row.number}, {name}" for row in wrong]
            continue
        known: dict[str, str] = {}
        for row in rows:
            cell = row.cells[column]
            fault = known[cell] if cell in known else known.setdefault(cell, check(cell, form))
            if fault:
                places[fault].append(f"line {row.number}, {name} = '{cell[:60]}'")
    return [f"{_cells(len(where))} {fault} ({listing(where, _SHOWN)})" for fault, where in places.items()]


def _empty_warnings(rows: Sequence[Line], form: SubmissionFormat) -> list[str]:
    if form.kind != "delimited" or form.empty_token:
        return []
    empty = [row.number for row in rows if "" in row.cells]
    if not empty:
        return []
    warning = f"{len(empty)} rows have no label and an empty cell ({_lines(empty)}), which some scorers read as missing"
    return [f"{warning}; submission.empty sets argmax, a label or a token"]


def _cells(count: int) -> str:
    return "1 cell is" if count == 1 else f"{count} cells are"


def _lines(numbers: Sequence[int]) -> str:
    return f"line{'' if len(numbers) == 1 else 's'} {listing(numbers, _SHOWN)}"
