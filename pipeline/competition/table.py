"""The training table: ids, image files, targets, groups. No pixels, no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.competition.corrections import correct, leave_out
from pipeline.competition.groups import read_groups
from pipeline.competition.labels import LabelledRows, read_labels
from pipeline.competition.notes import Tell
from pipeline.competition.paths import ImagePaths, image_paths
from pipeline.config import CompetitionConfig
from pipeline.errors import listing

POSITIVE_FROM = 0.5  # a soft target from here on is a positive to folds and scores


@dataclass(frozen=True)
class TrainTable:
    """The training rows; everything is in the order of `ids`.

    Attributes:
        ids: N unique strings.
        paths: the files of N images, one each or one per channel.
        targets: float32 (N, K) in [0, 1]; NaN where unknown.
        labels: K names in the submission's order.
        groups: N group names, or None.
        notes: what was guessed, skipped or changed while reading, one sentence each.
    """

    ids: tuple[str, ...]
    paths: tuple[ImagePaths, ...]
    targets: NDArray[np.float32]
    labels: tuple[str, ...]
    groups: tuple[str, ...] | None
    notes: tuple[str, ...] = ()

    @property
    def positives(self) -> NDArray[np.uint8]:
        """(N, K) 1 where a target is known to be positive, a soft one from 0.5 on; what folds are balanced by."""
        return (self.targets >= POSITIVE_FROM).astype(np.uint8)  # NaN is not

    @property
    def truths(self) -> NDArray[Any]:
        """(N, K) what predictions are scored against, see `truths_of`."""
        return truths_of(self.targets)


def truths_of(targets: NDArray[np.float32]) -> NDArray[Any]:
    """Targets (N, K) as scores see them: soft ones from 0.5 on are 1, others 0; float32 with NaN for unknown cells.

    Where every cell is known they are uint8, which metrics count fastest.
    """
    positives = targets >= POSITIVE_FROM
    unknown = np.isnan(targets)
    if not unknown.any():
        return positives.astype(np.uint8)
    return np.where(unknown, np.float32(np.nan), positives.astype(np.float32))


def read_train(competition: CompetitionConfig) -> TrainTable:
    """The training table, corrected, without excluded rows.

    Raises:
        CompetitionError: a missing file or column, bad cells, duplicate ids, labels that cannot be told.
    """
    notes: list[str] = []
    path = Path(competition.root) / competition.train
    rows = read_labels(competition, path, key="competition.train", tell=notes.append)
    rows = leave_out(correct(rows, competition, notes.append), competition, notes.append)
    _tell_contradictions(rows, competition, notes.append)
    return TrainTable(
        ids=tuple(rows.frame[competition.id]),
        paths=image_paths(competition, rows.frame, path, test=False),
        targets=rows.targets,
        labels=rows.labels,
        groups=read_groups(competition, rows.frame, path),
        notes=tuple(dict.fromkeys(notes)),
    )


def _tell_contradictions(rows: LabelledRows, competition: CompetitionConfig, tell: Tell) -> None:
    for names in competition.labels.exclusive:
        columns = [rows.labels.index(name) for name in names]
        both = (rows.targets[:, columns] >= POSITIVE_FROM).sum(axis=1) > 1
        if both.any():
            ids = rows.frame[competition.id][both]
            tell(f"{int(both.sum())} rows have several of the exclusive labels {', '.join(names)}: {listing(ids)}")
