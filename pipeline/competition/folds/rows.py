"""The rows that train and the rows that validate in one fold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALWAYS_TRAIN = -1
"""The fold of a row that every fold trains on and none validates on, in arrays and in fold files."""

FULL_FIT = -1  # in the place of a fold's number: a training on all rows


@dataclass(frozen=True)
class FoldRows:
    """The training and the validation rows of one fold, as row numbers of the training table.

    Attributes:
        fold: its number, or `FULL_FIT`.
        train: rows to train on; all rows in the full fit.
        validation: rows to validate on; none in the full fit.
    """

    fold: int
    train: NDArray[np.int64]
    validation: NDArray[np.int64]


def rows_of(folds: NDArray[np.int64], fold: int) -> FoldRows:
    """The rows of `fold`: those with this number in `folds` (N,) validate, all others train."""
    if fold == FULL_FIT:
        return FoldRows(fold, np.arange(len(folds)), np.empty(0, dtype=np.int64))
    return FoldRows(fold, np.flatnonzero(folds != fold), np.flatnonzero(folds == fold))
