"""The folds of a competition: from a fold file, or by stratification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.competition.folds.file import read_fold_file
from pipeline.competition.folds.stratify import make_folds
from pipeline.competition.table import TrainTable
from pipeline.config import Config


def deal_folds(config: Config, complete: TrainTable, table: TrainTable) -> NDArray[np.int64]:
    """The fold of each row of `table`; a fold file is about the rows of the `complete` one. Raises FoldError."""
    if config.folds.file is not None:
        path = Path(config.competition.root) / config.folds.file
        group_of = dict(zip(table.ids, table.groups, strict=True)) if table.groups is not None else None
        # Groups by images are known of the rows that are kept only; a row that is left out is nobody's sibling.
        groups = None if group_of is None else [group_of.get(id_, f"left out: {id_}") for id_ in complete.ids]
        folds = read_fold_file(path, complete.ids, groups=groups)
        fold_of = dict(zip(complete.ids, folds.tolist(), strict=True))
        return np.array([fold_of[id_] for id_ in table.ids], dtype=np.int64)
    return make_folds(
        table.ids,
        table.positives,
        table.labels,
        count=config.folds.count,
        seed=config.folds.seed,
        groups=table.groups,
    )
