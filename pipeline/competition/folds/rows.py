"""The rows that train and the rows that validate in one fold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.events import Fold

ALWAYS_TRAIN = -1
"""The fold of a row that every fold trains on and none validates on, in arrays and in fold files."""

FULL_FIT: Final = "full"
"""In the place of a fold's number: a training on all rows."""


@dataclass(frozen=True)
class FoldRows:
    """The training and the validation rows of one fold, as row numbers of the training table.

    Attributes:
        fold: its number, or `FULL_FIT`.
        train: rows to train on; all rows in the full fit.
        validation: rows to validate on; none in the full fit.
    """

    fold: Fold
    train: NDArray[np.int64]
    validation: NDArray[np.int64]

    @property
    def seed_part(self) -> int:
        """The fold as a part of seeds; the first runs gave the full fit this number, and its seeds stay the same."""
        return -1 if self.fold == FULL_FIT else self.fold


def rows_of(folds: NDArray[np.int64], fold: Fold) -> FoldRows:
    """The rows with `fold` in `folds` (N,) validate, all others train; for `FULL_FIT` all rows train."""
    if fold == FULL_FIT:
        return FoldRows(fold, np.arange(len(folds)), np.empty(0, dtype=np.int64))
    assert fold != ALWAYS_TRAIN
    return FoldRows(fold, np.flatnonzero(folds != fold), np.flatnonzero(folds == fold))
