"""Counts of how evenly folds share rows and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.competition.folds.rows import ALWAYS_TRAIN
from pipeline.competition.folds.stratify import FloatArray, IntArray

FEWEST_PER_FOLD = 100
"""`FoldTable.label_deviation` omits labels with fewer positives per fold: one row is over 1 % of them."""


@dataclass(frozen=True, eq=False)
class FoldTable:
    """The rows and the positives of each label by fold, and their deviation from even folds.

    Attributes:
        labels: K names.
        positives: (K, F) positive rows of each label in each validation fold.
        sizes: (F,) rows of each validation fold.
        always_train: number of `ALWAYS_TRAIN` rows; they count nowhere else in the table.
        size_deviation: largest |size / mean size − 1| over the folds.
        label_deviations: (K,) largest |share / mean share − 1| over the folds; NaN for a label that has no
            positives.
        label_deviation: the largest of these over the labels with at least `FEWEST_PER_FOLD` positives per
            fold on average; None if there is no such label.
        missing: the folds without a positive, for each label that has such folds.
    """

    labels: tuple[str, ...]
    positives: IntArray
    sizes: IntArray
    always_train: int
    size_deviation: float
    label_deviations: FloatArray
    label_deviation: float | None
    missing: dict[str, tuple[int, ...]]

    def warnings(self) -> list[str]:
        """One sentence for each label that has no positive in some fold, in the order of `labels`."""
        totals = dict(zip(self.labels, self.positives.sum(axis=1).tolist(), strict=True))
        return [_missing_sentence(label, totals[label], folds) for label, folds in self.missing.items()]


def _missing_sentence(label: str, total: int, folds: tuple[int, ...]) -> str:
    if total == 0:
        return f"label '{label}' has no positive row in any validation fold: it is never scored"
    rows = "1 positive row" if total == 1 else f"{total} positive rows"
    where = "fold" if len(folds) == 1 else "folds"
    return f"label '{label}' has {rows}, none in {where} {', '.join(map(str, folds))}: it is not scored there"


def fold_table(folds: IntArray, targets: NDArray[Any], labels: Sequence[str]) -> FoldTable:
    """Count the rows and positives of the validation folds 0 to F − 1.

    Args:
        folds: (N,) as from `stratified_folds` or `read_fold_file`.
        targets: (N, K) of 0 and 1.
        labels: K names.

    Raises:
        ValueError: the lengths disagree, or no row is in a validation fold.
    """
    if targets.shape != (len(folds), len(labels)):
        raise ValueError(f"expected targets of shape ({len(folds)}, {len(labels)}), got {targets.shape}")
    if folds.max(initial=ALWAYS_TRAIN) == ALWAYS_TRAIN:
        raise ValueError(f"expected a validation fold from 0, got only {ALWAYS_TRAIN}")
    validated = folds != ALWAYS_TRAIN
    sizes = np.bincount(folds[validated])
    positives = np.stack([(targets[folds == fold] == 1).sum(axis=0) for fold in range(len(sizes))], axis=1)
    label_deviations = np.array([_deviation(shares) for shares in positives])
    frequent = label_deviations[positives.mean(axis=1) >= FEWEST_PER_FOLD]
    return FoldTable(
        labels=tuple(labels),
        positives=positives,
        sizes=sizes,
        always_train=int((~validated).sum()),
        size_deviation=_deviation(sizes),
        label_deviations=label_deviations,
        label_deviation=float(frequent.max()) if len(frequent) else None,
        missing={
            label: tuple(np.flatnonzero(shares == 0).tolist())
            for label, shares in zip(labels, positives, strict=True)
            if (shares == 0).any()
        },
    )


def _deviation(shares: IntArray) -> float:
    """Largest |share / mean − 1| of (F,) counts; NaN where all are 0."""
    mean = shares.mean()
    return float(np.abs(shares / mean - 1).max()) if mean > 0 else float("nan")
