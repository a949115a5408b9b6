"""Wide labels: one column per label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.competition.csvs import dialect_of, read_header
from pipeline.competition.labels.cells import WRONG, CellRules, read_codes, rules_of, settle_codes
from pipeline.competition.labels.rows import LabelledRows, Source
from pipeline.config import CompetitionConfig, WideLabels
from pipeline.errors import CompetitionError, listing
from pipeline.events import Listener


def read_wide(config: WideLabels, source: Source) -> LabelledRows:
    """Read a table with a column per label.

    Raises:
        CompetitionError: no labels are known, a column is missing, or cells are neither 0 nor 1 nor allowed by the
            rules; the first of these are named by id and label.
    """
    frame, rules = source.table(), rules_of(config)
    labels = source.known or tuple(config.columns or source.sample)
    if not any(name in frame.columns for name in labels):
        raise _no_columns(frame, labels, rules, source)
    missing = [name for name in labels if name not in frame.columns]
    if missing:
        raise CompetitionError(
            f"{source.path}: label columns are missing: {listing(missing)}",
            expected=f"a 0/1 column for each of {listing(labels)}",
            got=f"columns {listing(frame.columns, 12)}",
            remedy="correct the CSV, or list the label columns in competition.labels.columns",
        )

    def name_cell(row: int, column: int) -> str:
        return f"{frame[source.competition.id].iloc[row]}/{labels[column]} = '{frame[labels[column]].iloc[row]}'"

    codes = np.stack([read_codes(frame[name].to_numpy(dtype=object), rules) for name in labels], axis=1)
    targets = settle_codes(codes, labels, rules, name_cell=name_cell, path=source.path, listen=source.listen)
    return LabelledRows(frame, labels, targets)


def _no_columns(frame: pd.DataFrame, asked: Sequence[str], rules: CellRules, source: Source) -> CompetitionError:
    own = {source.competition.id, source.competition.images.column}
    candidates = [
        name
        for name in frame.columns
        if name not in own and (read_codes(frame[name].to_numpy(dtype=object), rules) != WRONG).all()
    ]
    return CompetitionError(
        f"{source.path}: the label columns are not known: "
        + (f"there are no columns {listing(asked)}" if asked else "there is no sample submission"),
        expected="the labels in competition.labels.columns, or a wide sample submission",
        got=f"columns {listing(frame.columns, 12)}",
        remedy=f"set competition.labels.columns: [{listing(candidates, 30)}], which hold nothing but 0 and 1"
        if candidates
        else "set competition.labels.format to the format of the labels; no column holds nothing but 0 and 1",
    )


def sample_columns(competition: CompetitionConfig, listen: Listener) -> tuple[str, ...]:
    """The columns of the sample submission except the id; none if there is no such file."""
    if competition.sample_submission is None:
        return ()
    path = Path(competition.root) / competition.sample_submission
    if not path.exists():
        return ()
    id_column = competition.sample_id or competition.id
    header = read_header(
        path,
        id_column=id_column,
        key="competition.sample_submission",
        dialect=dialect_of(competition),
        listen=listen,
    )
    return tuple(name for name in header if name != id_column)
