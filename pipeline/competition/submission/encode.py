"""From predictions to the text cells of a submission, in exactly the sample's rows and columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.competition.labels import encode_delimited
from pipeline.competition.sample import Sample, require_same_ids
from pipeline.competition.submission.format import BINARY, LONG, SubmissionFormat, check_sample
from pipeline.competition.submission.long_rows import asked_images, split_rows


def build_submission(
    sample: Sample,
    form: SubmissionFormat,
    *,
    ids: Sequence[str],
    probabilities: NDArray[np.float64],
    decisions: NDArray[np.uint8],
) -> pd.DataFrame:
    """The submission as text cells, rows and columns as in the sample.

    Args:
        sample: the organisers' sample submission.
        form: the kind of cells.
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
        frame[_only_column(sample)] = _numbers(chosen, form)
        return frame[list(sample.columns)]
    order = [position[id_] for id_ in sample.ids]
    if form.kind == "ranked":
        frame[_only_column(sample)] = encode_ranked(probabilities[order], form)
    elif form.kind == "delimited":
        cells = encode_delimited(decisions[order], form.labels, form.separator)
        frame[_only_column(sample)] = [cell or form.empty_token for cell in cells]
    else:
        columns = {label: _numbers(values[order, number], form) for number, label in enumerate(form.labels)}
        frame = pd.concat([frame, pd.DataFrame(columns, dtype=str)], axis=1)
    return frame[list(sample.columns)]


def encode_ranked(probabilities: NDArray[np.float64], form: SubmissionFormat) -> list[str]:
    """One cell per row of `probabilities` (N, K): the k most probable names, descending; ties in label order."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, : form.k]
    return [form.separator.join(form.labels[label] for label in row) for row in best]


def _only_column(sample: Sample) -> str:
    (name,) = (name for name in sample.columns if name != sample.id_column)
    return name


def _numbers(values: NDArray[np.float64] | NDArray[np.uint8], form: SubmissionFormat) -> list[str]:
    if form.kind in BINARY:
        return [str(int(value)) for value in values.tolist()]
    form_of_a_number = ".9g" if form.digits is None else f".{form.digits}f"
    return [format(value, form_of_a_number) for value in values.tolist()]
