"""Which rows of the table train and which validate in one fold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FULL_FIT = -1  # in the place of a fold's number: a training on all rows


@dataclass(frozen=True)
class FoldRows:
    """The row numbers of one fold in the training table; of the full fit all rows, none of which validates."""

    fold: int
    train: NDArray[np.int64]
    validation: NDArray[np.int64]


def rows_of(folds: NDArray[np.int64], fold: int) -> FoldRows:
    """Rows with `fold` validate, all others (those of fold -1 too) train; for `FULL_FIT` all train."""
    if fold == FULL_FIT:
        return FoldRows(fold, np.arange(len(folds)), np.empty(0, dtype=np.int64))
    return FoldRows(fold, np.flatnonzero(folds != fold), np.flatnonzero(folds == fold))
