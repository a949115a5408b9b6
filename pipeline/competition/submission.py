"""Submissions: built in exactly the sample's ids, order and columns, written, read back and validated."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.competition.labels import encode_delimited, split_names
from pipeline.competition.sample import Sample, require_same_ids
from pipeline.config import DelimitedLabels, Labels, SubmissionConfig
from pipeline.errors import ConfigError, SubmissionError, listing
from pipeline.runs import write_atomically

SubmissionKind = Literal["wide_binary", "wide_probability", "delimited"]


@dataclass(frozen=True)
class SubmissionFormat:
    """What a scorer expects beside the sample: the kind of cells, the labels, and how names are joined.

    Attributes:
        kind: `wide_binary` (0 or 1), `wide_probability` (in [0, 1]) or `delimited` (names in one cell).
        labels: K names in the order of the predictions' columns.
        separator: joins the names of a delimited cell.
        empty_token: what a delimited cell holds for a row without any label.
    """

    kind: SubmissionKind
    labels: tuple[str, ...]
    separator: str = " "
    empty_token: str = ""


EmptyRule = Literal["none", "argmax"] | int


def resolve_empty(empty: str, labels: Sequence[str], kind: SubmissionKind) -> tuple[EmptyRule, str]:
    """What `submission.empty` means: the rule for decisions, and the token for an empty delimited cell.

    A label's name predicts that label for rows that have none; another word is a token that only a
    delimited submission can hold.

    Raises:
        ConfigError: a word that is no label in a wide submission.
    """
    if empty == "none":
        return "none", ""
    if empty == "argmax":
        return "argmax", ""
    if empty in labels:
        return list(labels).index(empty), ""
    if kind != "delimited":
        raise ConfigError(
            f"submission.empty: '{empty}' cannot stand in a {kind} submission",
            expected=f"none, argmax, or a label out of {listing(labels)}",
            remedy="choose one of these, or set submission.format: delimited",
        )
    return "none", empty


def submission_form(
    submission: SubmissionConfig, encoding: Labels, labels: tuple[str, ...]
) -> tuple[SubmissionFormat, EmptyRule]:
    """The form of the submission, and the rule for rows without a decision. Raises ConfigError as `resolve_empty`."""
    empty, token = resolve_empty(submission.empty, labels, submission.format)
    separator = encoding.separator if isinstance(encoding, DelimitedLabels) else " "
    return SubmissionFormat(submission.format, labels, separator, token), empty


def check_sample(sample: Sample, form: SubmissionFormat, *, id_column: str) -> None:
    """Raise SubmissionError where the sample's header cannot hold a submission of this form."""
    columns = [name for name in sample.columns if name != id_column]
    if form.kind == "delimited":
        if len(columns) != 1:
            raise SubmissionError(
                f"{sample.path}: a delimited submission has one column beside '{id_column}'",
                got=f"columns {listing(columns, 12)}",
                remedy="set submission.format to wide_binary or wide_probability, or give the right sample",
            )
    elif set(columns) != set(form.labels):
        raise SubmissionError(
            f"{sample.path}: the columns are not the labels",
            expected=f"a column for each of {listing(form.labels, 12)}",
            got=f"columns {listing(columns, 12)}",
            remedy="give the sample submission of this competition, or set submission.format: delimited",
        )


def build_submission(
    sample: Sample,
    form: SubmissionFormat,
    *,
    id_column: str,
    ids: Sequence[str],
    probabilities: NDArray[np.float64],
    decisions: NDArray[np.uint8],
) -> pd.DataFrame:
    """The submission as text cells, rows and columns as in the sample.

    Args:
        sample: the organisers' sample submission.
        form: the kind of cells.
        id_column: the sample's id column.
        ids: N ids, the rows of the two arrays, in any order.
        probabilities: (N, K) in [0, 1].
        decisions: (N, K) 0 or 1.

    Raises:
        SubmissionError, CompetitionError: the sample's columns or ids do not fit.
    """
    check_sample(sample, form, id_column=id_column)
    require_same_ids(sample, ids, other="the predictions")
    position = {id_: row for row, id_ in enumerate(ids)}
    order = [position[id_] for id_ in sample.ids]
    frame = pd.DataFrame({id_column: list(sample.ids)}, dtype=str)
    if form.kind == "delimited":
        (column,) = (name for name in sample.columns if name != id_column)
        cells = encode_delimited(decisions[order], form.labels, form.separator)
        frame[column] = [cell or form.empty_token for cell in cells]
    else:
        binary = form.kind == "wide_binary"
        values = decisions[order] if binary else probabilities[order]
        text = [[str(int(cell)) if binary else f"{cell:.9g}" for cell in row] for row in values]
        frame[list(form.labels)] = pd.DataFrame(text, columns=list(form.labels), dtype=str)
    return frame[list(sample.columns)]


def write_submission(
    path: Path, frame: pd.DataFrame, sample: Sample, form: SubmissionFormat, *, id_column: str
) -> None:
    """Write `frame`, read the file back as a scorer would, validate it, and only then give it its name.

    Raises:
        SubmissionError: the written file is not valid; nothing stands under `path` then that was not there.
    """

    def write_and_validate(temporary: Path) -> None:
        temporary.write_bytes(frame.to_csv(index=False, lineterminator="\n").encode("utf-8"))
        problems = validate_submission(temporary, sample, form, id_column=id_column)
        if problems:
            raise SubmissionError(
                f"{path} would be rejected: {listing(problems)}",
                remedy="use label names without the separator; otherwise please report this as our fault",
            )

    write_atomically(path, write_and_validate)


def validate_submission(path: Path, sample: Sample, form: SubmissionFormat, *, id_column: str) -> list[str]:
    """Why a scorer would reject the file at `path`: one sentence per problem, none if it is valid."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except UnicodeDecodeError:
        return ["it is not UTF-8"]
    if not rows or tuple(rows[0]) != sample.columns:
        return [f"the header is {rows[0] if rows else 'missing'}, not {list(sample.columns)}"]
    uneven = [str(line) for line, row in enumerate(rows[1:], start=2) if len(row) != len(sample.columns)]
    if uneven:
        return [f"lines {listing(uneven)} do not have {len(sample.columns)} cells"]
    place = sample.columns.index(id_column)
    if [row[place] for row in rows[1:]] != list(sample.ids):
        return ["the ids are not the sample's ids in the sample's order"]
    check = {"wide_binary": _binary_fault, "wide_probability": _probability_fault, "delimited": _names_fault}
    problems = []
    for row in rows[1:]:
        for column, cell in zip(sample.columns, row, strict=True):
            fault = "" if column == id_column else check[form.kind](cell, form)
            if fault:
                problems.append(f"{row[place]}/{column} = '{cell}': {fault}")
    return problems


def _binary_fault(cell: str, form: SubmissionFormat) -> str:  # noqa: ARG001 (one signature for all kinds)
    return "" if cell in ("0", "1") else "not the integer 0 or 1"


def _probability_fault(cell: str, form: SubmissionFormat) -> str:  # noqa: ARG001 (one signature for all kinds)
    try:
        value = float(cell)
    except ValueError:
        return "not a number"
    return "" if math.isfinite(value) and 0.0 <= value <= 1.0 else "not a probability in [0, 1]"


def _names_fault(cell: str, form: SubmissionFormat) -> str:
    if cell == form.empty_token:
        return ""
    names = cell.split(form.separator)
    unknown = [name for name in names if name not in form.labels]
    if unknown:
        return f"not a label: {listing(repr(name) for name in unknown)}"
    repeated = len(set(names)) != len(names)
    return "a label stands twice" if repeated or names != split_names(cell, form.separator) else ""
