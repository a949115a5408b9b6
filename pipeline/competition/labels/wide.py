"""Wide labels: one column per label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.competition.csvs import dialect_of, read_header
from pipeline.competition.labels.cells import WRONG, CellRules, encode_cells, read_codes, rules_of, settle_codes
from pipeline.competition.labels.rows import LabelledRows, Source, Targets
from pipeline.config import CompetitionConfig, WideLabels
from pipeline.errors import CompetitionError, listing
from pipeline.events import Listener, ignore

_PLAIN = CellRules()


def read_wide(config: WideLabels, source: Source) -> LabelledRows:
    """Read a table with a column per label. Raises CompetitionError as `decode_wide`, or if no labels are known."""
    frame = source.table()
    labels = source.known or tuple(config.columns or source.sample)
    if not any(name in frame.columns for name in labels):
        raise _no_columns(frame, labels, rules_of(config), source)
    targets = decode_wide(
        frame,
        labels,
        path=source.path,
        id_column=source.competition.id,
        rules=rules_of(config),
        listen=source.listen,
    )
    return LabelledRows(frame, labels, targets)


def decode_wide(
    frame: pd.DataFrame,
    columns: Sequence[str],
    *,
    path: Path,
    id_column: str,
    rules: CellRules = _PLAIN,
    listen: Listener = ignore,
) -> Targets:
    """Targets (N, K) in [0, 1], NaN where unknown, from one column per label.

    Raises:
        CompetitionError: a column is missing, or cells are neither 0 nor 1 nor allowed by the rules; the first of these
            are named by id and label.
    """
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise CompetitionError(
            f"{path}: label columns are missing: {listing(missing)}",
            expected=f"a 0/1 column for each of {listing(columns)}",
            got=f"columns {listing(frame.columns, 12)}",
            remedy="correct the CSV, or list the label columns in competition.labels.columns",
        )
    cells = frame[list(columns)].to_numpy(dtype=object)

    def name_cell(row: int, column: int) -> str:
        return f"{frame[id_column].iloc[row]}/{columns[column]} = '{cells[row, column]}'"

    codes = read_codes(cells, rules)
    return settle_codes(codes, columns, rules, name_cell=name_cell, path=path, listen=listen)


def encode_wide(targets: Targets, labels: Sequence[str]) -> pd.DataFrame:
    """One text column per label; unknown cells are blank."""
    return pd.DataFrame(encode_cells(targets), columns=list(labels), dtype=str)


def _no_columns(frame: pd.DataFrame, asked: Sequence[str], rules: CellRules, source: Source) -> CompetitionError:
    own = {source.competition.id, source.competition.images.column}
    candidates = [
        name
        for name in frame.columns
        if name not in own and (read_codes(frame[name].to_numpy(dtype=object), rules) != WRONG).all()
    ]
    return CompetitionError(
        f"{source.path}: the label columns are not known: "
        + (f"the sample submission's columns {listing(asked)} are not there" if asked else "no sample submission"),
        expected="the labels in competition.labels.columns, or a wide sample submission",
        got=f"columns {listing(frame.columns, 12)}",
        remedy=f"columns that hold nothing but 0 and 1: {listing(candidates, 30)}"
        if candidates
        else "set competition.labels.format to the format of the labels; no column holds nothing but 0 and 1",
    )


def sample_columns(competition: CompetitionConfig, listen: Listener) -> tuple[str, ...]:
    """The sample submission's columns beside the id; none if there is no such file."""
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
