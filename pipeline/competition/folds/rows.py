"""The rows of the table that train and those that validate in one fold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.competition.folds.table import ALWAYS_TRAIN
from pipeline.events import Fold

FULL_FIT: Final = "full"
"""In the place of a fold's number: a training on all rows."""


@dataclass(frozen=True)
class FoldRows:
    """The row numbers of one fold in the training table; of the full fit all rows, none of which validates."""

    fold: Fold
    train: NDArray[np.int64]
    validation: NDArray[np.int64]

    @property
    def seed_part(self) -> int:
        """The fold as a part of seeds; the first runs gave the full fit this number, and its seeds stay the same."""
        return -1 if self.fold == FULL_FIT else self.fold


def rows_of(folds: NDArray[np.int64], fold: Fold) -> FoldRows:
    """Rows with `fold` validate, all others train, also those of `ALWAYS_TRAIN`; for `FULL_FIT` all train."""
    if fold == FULL_FIT:
        return FoldRows(fold, np.arange(len(folds)), np.empty(0, dtype=np.int64))
    assert fold != ALWAYS_TRAIN
    return FoldRows(fold, np.flatnonzero(folds != fold), np.flatnonzero(folds == fold))
