"""From predictions to a submission file: text cells in the sample's rows and columns, validated before it is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.competition.submission.format import (
    BINARY,
    LONG,
    SubmissionFormat,
    asked_images,
    split_rows,
)
from pipeline.competition.submission.sample import Sample, require_same_ids
from pipeline.competition.submission.sample_check import answer_columns, check_sample
from pipeline.competition.submission.validate import validate_submission
from pipeline.errors import SubmissionError, listing
from pipeline.events import Listener, Note
from pipeline.files import write_atomically


def build_submission(
    sample: Sample,
    form: SubmissionFormat,
    *,
    ids: Sequence[str],
    probabilities: NDArray[np.float64],
    decisions: NDArray[np.uint8],
) -> pd.DataFrame:
    """The submission as text cells, with the rows and columns of the sample.

    Args:
        sample: the organisers' sample submission.
        form: the format of the cells.
        ids: N ids of images, the rows of the two arrays, in any order.
        probabilities: (N, K) in [0, 1].
        decisions: (N, K) 0 or 1.

    Raises:
        SubmissionError, CompetitionError: the sample's columns or ids do not fit.
    """
    check_sample(sample, form)
    require_same_ids(sample.path, asked_images(sample, form), ids, other="the predictions")
    position = {id_: row for row, id_ in enumerate(ids)}
    frame = pd.DataFrame({sample.id_column: list(sample.ids)}, dtype=str)
    values = decisions if form.kind in BINARY else probabilities
    if form.kind in LONG:
        column = {label: number for number, label in enumerate(form.labels)}
        asked, names = split_rows(sample, form)
        chosen = values[[position[id_] for id_ in asked], [column[name] for name in names]]
        frame[_only_column(sample, form)] = _numbers(chosen, form)
        return _complete(frame, sample, form)
    order = [position[id_] for id_ in sample.ids]
    if form.kind == "ranked":
        frame[_only_column(sample, form)] = _ranked_cells(probabilities[order], form)
    elif form.kind == "delimited":
        frame[_only_column(sample, form)] = _name_cells(decisions[order], form)
    else:
        asked_for = set(sample.columns)  # may be fewer than were trained
        columns = {
            label: _numbers(values[order, number], form)
            for number, label in enumerate(form.labels)
            if label in asked_for
        }
        frame = pd.concat([frame, pd.DataFrame(columns, dtype=str)], axis=1)
    return _complete(frame, sample, form)


def write_submission(path: Path, frame: pd.DataFrame, sample: Sample, form: SubmissionFormat, listen: Listener) -> None:
    """Write `frame` under a temporary name, validate that file, then rename it to `path`; note the warnings.

    Raises:
        SubmissionError: the written file is not valid; `path` is as it was before.
    """

    def write_and_validate(temporary: Path) -> None:
        written = frame.set_axis(list(sample.as_written().columns), axis=1)
        written[sample.as_written().id_column] = list(sample.as_written().ids)
        temporary.write_bytes(written.to_csv(index=False, lineterminator="\n").encode("utf-8"))
        found = validate_submission(temporary, sample, form, name=path.name)
        if found.errors:
            raise SubmissionError(
                f"{path} would be rejected: {listing(found.errors)}",
                remedy="correct the sample or the labels named here; otherwise please report a fault of the pipeline",
            )
        for warning in found.warnings:
            listen(Note(warning))

    write_atomically(path, write_and_validate)


def _ranked_cells(probabilities: NDArray[np.float64], form: SubmissionFormat) -> list[str]:
    """One cell per row of `probabilities` (N, K): the k most probable names, descending; ties in label order."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, : form.k]
    return [form.layout.join(form.labels[label] for label in row) for row in best]


def _name_cells(decisions: NDArray[np.uint8], form: SubmissionFormat) -> list[str]:
    """One cell per row of `decisions` (N, K): the names with a 1 in label order, or all values of a vector."""
    if form.cells == "vector":
        return [form.layout.join(form.layout.bits[value] for value in row) for row in decisions.tolist()]
    names = np.asarray(form.labels, dtype=object)
    chosen = [names[row.astype(bool)].tolist() for row in decisions]
    return [form.layout.join(row) if row else form.empty_token or form.layout.join(row) for row in chosen]


def _only_column(sample: Sample, form: SubmissionFormat) -> str:
    (name,) = answer_columns(sample, form)
    return name


def _complete(frame: pd.DataFrame, sample: Sample, form: SubmissionFormat) -> pd.DataFrame:
    """The frame with the constant columns, in the sample's order."""
    return frame.assign(**form.constants)[list(sample.columns)]


def _numbers(values: NDArray[np.float64] | NDArray[np.uint8], form: SubmissionFormat) -> list[str]:
    if form.kind in BINARY:
        return [str(int(value)) for value in values.tolist()]
    form_of_a_number = ".9g" if form.digits is None else f".{form.digits}f"
    return [format(value, form_of_a_number) for value in values.tolist()]
