"""The parts that thresholds are cross-fitted over: the folds, or parts of the only fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.competition.folds.stratify import IntArray, stratified_folds
from pipeline.errors import FoldError

_SINGLE_FOLD_PARTS, _FEWEST_PARTS = 5, 2


def cross_fitting_parts(
    ids: Sequence[str],
    folds: IntArray,
    positives: NDArray[Any],
    labels: Sequence[str],
    *,
    seed: int,
    groups: Sequence[str] | None = None,
) -> tuple[IntArray, list[str]]:
    """The part (N,) of each validated row, and the notes on the parts that belong beside the scores.

    Args:
        ids: N distinct ids.
        folds: (N,) the fold that each row is validated in.
        positives: (N, K) of 0 and 1.
        labels: K distinct names.
        seed: for the parts of a single fold.
        groups: N names; rows of one name share a part.

    Raises:
        FoldError: the only fold has fewer than two rows, or fewer than two groups.
    """
    if np.unique(folds).size > 1:
        return folds, []
    units = len(ids) if groups is None else len(set(groups))
    count = min(_SINGLE_FOLD_PARTS, units)
    if count < _FEWEST_PARTS:
        raise FoldError(
            "the one validation fold is too small to cross-fit thresholds",
            expected="at least two rows in it, and at least two groups if there are groups",
            got=f"{units}",
            remedy="validate more rows in folds.file, or set folds.count",
        )
    parts = stratified_folds(ids, positives, labels, count=count, seed=seed, groups=groups)
    return parts, [f"one validation fold: thresholds are cross-fitted over {count} parts of its rows"]


def group_numbers(groups: Sequence[str] | None) -> IntArray | None:
    """The same groups (N,) as numbers from 0; None stays None."""
    return None if groups is None else np.asarray(np.unique(list(groups), return_inverse=True)[1])


def folds_mark(folds: Sequence[int], of_folds: Sequence[int]) -> str | None:
    """The mark beside a score of some of a run's folds, such as 'folds 0, 1 of 0-4'; None for all of them."""
    if set(folds) == set(of_folds):
        return None
    first, last = min(of_folds), max(of_folds)
    return f"{'fold' if len(folds) == 1 else 'folds'} {', '.join(map(str, sorted(folds)))} of {first}-{last}"
