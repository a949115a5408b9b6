"""The folds of a competition: read from `folds.file`, or made by stratification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.competition.folds.file import read_fold_file, refuse_split_groups
from pipeline.competition.folds.stratify import stratified_folds
from pipeline.competition.table import TrainTable
from pipeline.config import Config


def deal_folds(
    config: Config, complete: TrainTable, table: TrainTable, *, whole_groups: bool = True
) -> NDArray[np.int64]:
    """The fold (N,) of each row of `table`.

    Args:
        config: of the run.
        complete: the table before rows were left out; a fold file has a row for each of these ids.
        table: the rows that are kept.
        whole_groups: whether to refuse a fold file that splits a group of `table`.

    Raises:
        FoldError: folds cannot be made, or the fold file does not fit.
    """
    if config.folds.file is None:
        return stratified_folds(
            table.ids,
            table.positives,
            table.labels,
            count=config.folds.count,
            seed=config.folds.seed,
            groups=table.groups,
        )
    path = Path(config.competition.root) / config.folds.file
    fold_of = dict(zip(complete.ids, read_fold_file(path, complete.ids).tolist(), strict=True))
    folds = np.array([fold_of[id_] for id_ in table.ids], dtype=np.int64)
    if whole_groups:
        refuse_split_groups(path, table.groups, folds)
    return folds
