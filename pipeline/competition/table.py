"""The training table: ids, image files, targets and groups, with the cells corrected and the rows excluded by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.competition.csvs import column_of, dialect_of, read_cells
from pipeline.competition.groups import read_groups
from pipeline.competition.labels import LabelledRows, read_labels
from pipeline.competition.paths import ImagePaths, image_paths
from pipeline.config import CompetitionConfig
from pipeline.errors import CompetitionError, listing, nearest
from pipeline.events import Listener, Note

POSITIVE_FROM = 0.5  # folds and scores count a soft target from here on as positive
_VALUES = {"0": 0.0, "1": 1.0, "unknown": np.nan}


@dataclass(frozen=True)
class TrainTable:
    """The training rows; everything is in the order of `ids`.

    Attributes:
        ids: N unique strings.
        paths: the files of N images, one each or one per channel.
        targets: float32 (N, K) in [0, 1]; NaN where unknown.
        labels: K names in the submission's order.
        groups: N group names, or None.
    """

    ids: tuple[str, ...]
    paths: tuple[ImagePaths, ...]
    targets: NDArray[np.float32]
    labels: tuple[str, ...]
    groups: tuple[str, ...] | None

    @property
    def positives(self) -> NDArray[np.uint8]:
        """(N, K) 1 where a target is known and at least 0.5. Folds are balanced by these."""
        return (self.targets >= POSITIVE_FROM).astype(np.uint8)  # NaN compares as False

    @cached_property
    def truths(self) -> NDArray[Any]:
        """(N, K) the values that predictions are scored against, see `truths_of`."""
        return truths_of(self.targets)

    def take(self, rows: Sequence[int]) -> TrainTable:
        """A table with only these rows, in the order given."""
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            paths=tuple(self.paths[row] for row in rows),
            targets=self.targets[list(rows)],
            groups=None if self.groups is None else tuple(self.groups[row] for row in rows),
        )


def truths_of(targets: NDArray[np.float32]) -> NDArray[Any]:
    """Targets (N, K) as scores need them: 1 from 0.5 on, otherwise 0, in float32 with NaN for unknown cells.

    If every cell is known, they are uint8, which metrics count fastest.
    """
    positives = targets >= POSITIVE_FROM
    unknown = np.isnan(targets)
    if not unknown.any():
        return positives.astype(np.uint8)
    return np.where(unknown, np.float32(np.nan), positives.astype(np.float32))


def read_train(competition: CompetitionConfig, listen: Listener) -> TrainTable:
    """Read the training table, apply `competition.corrections`, and leave out the rows in `competition.exclude`.

    Args:
        competition: how the files are written.
        listen: gets a note on each guess, change and omission.

    Raises:
        CompetitionError: a file or column is missing, cells are wrong, ids repeat, or the labels cannot be found.
    """
    path = Path(competition.root) / competition.train
    rows = read_labels(competition, path, key="competition.train", listen=listen)
    rows = _exclude(_correct(rows, competition, listen), competition, listen)
    _note_contradictions(rows, competition, listen)
    _note_labels_without_negatives(rows, path, listen)
    _note_no_header(rows, competition, path, listen)
    return TrainTable(
        ids=tuple(rows.frame[competition.id]),
        paths=image_paths(competition, rows.frame, path, test=False),
        targets=rows.targets,
        labels=rows.labels,
        groups=read_groups(competition, rows.frame, path),
    )


def _note_no_header(rows: LabelledRows, competition: CompetitionConfig, path: Path, listen: Listener) -> None:
    """Note a header whose cells lead to an image: it is the first row, and its image would not be trained."""
    names = list(rows.frame.columns)
    try:
        files = image_paths(competition, pd.DataFrame([names], columns=names), path, test=False)[0]
    except CompetitionError:  # the template needs a number, which the header does not hold
        return
    if all(file.is_file() for file in files):
        header = ["id" if name == competition.id else f"column_{number}" for number, name in enumerate(names, start=1)]
        listen(
            Note(
                f"{path}: the header leads to the image {listing(files)}, so the table has no header, and that image "
                "is left out",
                kind="no_header",
                remedy=f"set competition.header: [{', '.join(header)}] and competition.id: id, and use these names",
            )
        )


def _note_labels_without_negatives(rows: LabelledRows, path: Path, listen: Listener) -> None:
    """Note labels that have positives and no known negative: a model cannot be wrong about them."""
    bare = (rows.targets >= POSITIVE_FROM).any(axis=0) & ~(rows.targets < POSITIVE_FROM).any(axis=0)
    names = [rows.labels[column] for column in np.flatnonzero(bare)]
    if names:
        remedy = "check the table; if cells of these labels are unknown that mean no, set competition.labels.uncertain "
        remedy += "or competition.labels.missing: zeros"
        listen(
            Note(
                f"{path}: {len(names)} of {len(rows.labels)} labels have no known negative, so that scores such as mAP "
                f"are 1.0 or undefined for them: {listing(names)}",
                kind="label_without_negative",
                remedy=remedy,
            )
        )


def _correct(rows: LabelledRows, competition: CompetitionConfig, listen: Listener) -> LabelledRows:
    """Replace the cells that the CSV `competition.corrections` lists by id, label and value; note unknown ids.

    Raises:
        CompetitionError: the file cannot be read, a label is unknown, a value is not 0, 1 or unknown, or two
            corrections of a cell disagree.
    """
    if competition.corrections is None:
        return rows
    path, key = Path(competition.root) / competition.corrections, "competition.corrections"
    frame = read_cells(path, id_column=competition.id, key=key, dialect=dialect_of(competition), listen=listen)
    ids = frame[competition.id].tolist()
    labels = [name.strip() for name in column_of(frame, "label", path=path, key=key)]
    values = [text.strip() for text in column_of(frame, "value", path=path, key=key)]
    wanted = _corrections(path, ids, labels, values, rows.labels)
    row = {id_: number for number, id_ in enumerate(rows.frame[competition.id])}
    column = {name: number for number, name in enumerate(rows.labels)}
    targets, changed = rows.targets.copy(), 0
    for (id_, label), value in wanted.items():
        if id_ in row:
            place = row[id_], column[label]
            changed += not np.array_equal(targets[place], _VALUES[value], equal_nan=True)
            targets[place] = _VALUES[value]
    _note_unknown_ids(path, [id_ for id_ in ids if id_ not in row], listen)
    listen(Note(f"{path}: {changed} label cells are corrected, {len(wanted) - changed} corrections change nothing"))
    return replace(rows, targets=targets)


def _corrections(
    path: Path, ids: list[str], labels: list[str], values: list[str], known: tuple[str, ...]
) -> dict[tuple[str, str], str]:
    """{(id, label): value}. Raises CompetitionError for an unknown label or value, or two values of one cell."""
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


def _exclude(rows: LabelledRows, competition: CompetitionConfig, listen: Listener) -> LabelledRows:
    """Drop the ids that `competition.exclude` lists, or that the CSV it names holds in its id column.

    Raises:
        CompetitionError: the file cannot be read, or no row is left.
    """
    excluded = _excluded_ids(competition, listen)
    if not excluded:
        return rows
    ids = rows.frame[competition.id]
    kept = ~ids.isin(excluded).to_numpy()
    _note_unknown_ids("competition.exclude", sorted(excluded - set(ids)), listen)
    listen(Note(f"competition.exclude: {int((~kept).sum())} of {len(kept)} rows are left out"))
    if not kept.any():
        raise CompetitionError("competition.exclude leaves no row to train on", remedy="exclude fewer ids")
    return replace(rows, frame=rows.frame[kept].reset_index(drop=True), targets=rows.targets[kept])


def _excluded_ids(competition: CompetitionConfig, listen: Listener) -> set[str]:
    listed = competition.exclude
    if not isinstance(listed, str):
        return {id_.strip() for id_ in listed or ()}
    path, key = Path(competition.root) / listed, "competition.exclude"
    frame = read_cells(path, id_column=competition.id, key=key, dialect=dialect_of(competition), listen=listen)
    return set(frame[competition.id])


def _note_unknown_ids(source: object, ids: list[str], listen: Listener) -> None:
    if ids:
        listen(Note(f"{source}: {len(ids)} ids are not in the training table: {listing(ids)}"))


def _note_contradictions(rows: LabelledRows, competition: CompetitionConfig, listen: Listener) -> None:
    for names in competition.labels.exclusive:
        columns = [rows.labels.index(name) for name in names]
        both = (rows.targets[:, columns] >= POSITIVE_FROM).sum(axis=1) > 1
        if both.any():
            ids = rows.frame[competition.id][both]
            listen(
                Note(f"{int(both.sum())} rows have several of the exclusive labels {', '.join(names)}: {listing(ids)}")
            )
