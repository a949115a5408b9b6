"""What the organisers' table should have said: cells corrected by hand, and rows to leave out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.competition.csvs import column_of, dialect_of, read_cells
from pipeline.competition.labels import LabelledRows
from pipeline.competition.notes import Tell
from pipeline.config import CompetitionConfig
from pipeline.errors import CompetitionError, listing, nearest

_VALUES = {"0": 0.0, "1": 1.0, "unknown": np.nan}


def correct(rows: LabelledRows, competition: CompetitionConfig, tell: Tell) -> LabelledRows:
    """`rows` with the cells that `competition.corrections` lists: columns of the id, label and value.

    Ids that the table does not have are told and left out.

    Raises:
        CompetitionError: the file cannot be read, a label is unknown, a value is not 0, 1 or unknown, or two
            corrections of a cell disagree.
    """
    if competition.corrections is None:
        return rows
    path = Path(competition.root) / competition.corrections
    frame = read_cells(
        path,
        id_column=competition.id,
        key="competition.corrections",
        dialect=dialect_of(competition),
        tell=tell,
    )
    ids = frame[competition.id].tolist()
    labels = [name.strip() for name in column_of(frame, "label", path=path, key="competition.corrections")]
    values = [text.strip() for text in column_of(frame, "value", path=path, key="competition.corrections")]
    wanted = _wanted(path, ids, labels, values, rows.labels)
    row = {id_: number for number, id_ in enumerate(rows.frame[competition.id])}
    column = {name: number for number, name in enumerate(rows.labels)}
    targets, changed = rows.targets.copy(), 0
    for (id_, label), value in wanted.items():
        if id_ in row:
            place = row[id_], column[label]
            changed += not np.array_equal(targets[place], _VALUES[value], equal_nan=True)
            targets[place] = _VALUES[value]
    _tell_unknown(path, [id_ for id_ in ids if id_ not in row], tell)
    tell(f"{path}: {changed} label cells are corrected, {len(wanted) - changed} corrections change nothing")
    return replace(rows, targets=targets)


def leave_out(rows: LabelledRows, competition: CompetitionConfig, tell: Tell) -> LabelledRows:
    """`rows` without the ids that `competition.exclude` lists, or the CSV it names, by its id column.

    Raises:
        CompetitionError: the file cannot be read, or no row is left.
    """
    excluded = _excluded_ids(competition, tell)
    if not excluded:
        return rows
    ids = rows.frame[competition.id]
    kept = ~ids.isin(excluded).to_numpy()
    _tell_unknown("competition.exclude", sorted(excluded - set(ids)), tell)
    tell(f"competition.exclude: {int((~kept).sum())} of {len(kept)} rows are left out")
    if not kept.any():
        raise CompetitionError("competition.exclude leaves no row to train on", remedy="exclude fewer ids")
    return replace(rows, frame=rows.frame[kept].reset_index(drop=True), targets=rows.targets[kept])


def _excluded_ids(competition: CompetitionConfig, tell: Tell) -> set[str]:
    listed = competition.exclude
    if not isinstance(listed, str):
        return {id_.strip() for id_ in listed or ()}
    path = Path(competition.root) / listed
    frame = read_cells(
        path, id_column=competition.id, key="competition.exclude", dialect=dialect_of(competition), tell=tell
    )
    return set(frame[competition.id])


def _wanted(
    path: Path, ids: list[str], labels: list[str], values: list[str], known: tuple[str, ...]
) -> dict[tuple[str, str], str]:
    wanted: dict[tuple[str, str], str] = {}
    for id_, label, value in zip(ids, labels, values, strict=True):
        if label not in known:
            raise CompetitionError(
                f"{path}: there is no label '{label}'{nearest(label, known)}",
                expected=f"labels out of {listing(known, 12)}",
                remedy="correct the name",
            )
        if value not in _VALUES or wanted.setdefault((id_, label), value) != value:
            raise CompetitionError(
                f"{path}: the correction of {id_}/{label} is not one value",
                expected="0, 1 or unknown, the same in all rows of this id and label",
                got=f"'{value}'" if value not in _VALUES else f"'{wanted[id_, label]}' and '{value}'",
                remedy="correct this row",
            )
    return wanted


def _tell_unknown(source: object, ids: list[str], tell: Tell) -> None:
    if ids:
        tell(f"{source}: {len(ids)} ids are not in the training table: {listing(ids)}")
