"""The training table: ids, image files, targets, groups. No pixels, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.competition.csvs import column_of, read_table
from pipeline.competition.groups import read_groups
from pipeline.competition.labels import decode_delimited, decode_wide, label_names
from pipeline.competition.paths import ImagePaths, image_paths
from pipeline.competition.sample import read_sample
from pipeline.config import CompetitionConfig, DelimitedLabels
from pipeline.errors import CompetitionError

RESERVED_LABELS = ("id", "fold")  # the columns that stand beside the labels in a run's prediction files


@dataclass(frozen=True)
class TrainTable:
    """The training rows; everything is in the order of `ids`.

    Attributes:
        ids: N unique strings.
        paths: the files of N images, one each or one per channel.
        targets: float32 (N, K), 0 or 1.
        labels: K names in the submission's order.
        groups: N group names, or None.
    """

    ids: tuple[str, ...]
    paths: tuple[ImagePaths, ...]
    targets: NDArray[np.float32]
    labels: tuple[str, ...]
    groups: tuple[str, ...] | None


def read_train(competition: CompetitionConfig) -> TrainTable:
    """The training table. Raises CompetitionError for a missing file or column, bad cells, duplicate ids."""
    path = Path(competition.root) / competition.train
    frame = read_table(path, id_column=competition.id, key="competition.train")
    ids = tuple(frame[competition.id])
    if isinstance(competition.labels, DelimitedLabels):
        cells = column_of(frame, competition.labels.column, path=path, key="competition.labels.column")
        labels = label_names(cells, competition.labels.separator)
        targets = decode_delimited(cells, labels, competition.labels.separator)
    else:
        labels = tuple(competition.labels.columns or _sample_labels(competition))
        targets = decode_wide(frame, labels, path=path, id_column=competition.id)
    _check_labels(labels, path)
    groups = read_groups(competition, frame, path)
    return TrainTable(ids, image_paths(competition, frame, path, test=False), targets, labels, groups)


def _sample_labels(competition: CompetitionConfig) -> tuple[str, ...]:
    columns = read_sample(competition).columns
    return tuple(name for name in columns if name != competition.id)


def _check_labels(labels: Sequence[str], path: Path) -> None:
    reserved = [name for name in labels if name in RESERVED_LABELS]
    if not labels or reserved:
        raise CompetitionError(
            f"{path}: no labels were found" if not labels else f"{path}: a label may not be called '{reserved[0]}'",
            remedy="check competition.labels and the columns of the sample submission",
        )
