"""From out-of-fold scores of single models to test scores of their mean: what stays, the threshold or the rate."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipeline.metrics.targets import Bits, Floats, Known
from pipeline.thresholds.line_search import ABOVE_ONE
from pipeline.thresholds.policies import quantile_threshold

Transfer = Literal["value", "rate"]
FEWEST_ROWS = 200  # of a test set, for a share of them to mean something


def rates(decisions: Bits, known: Known | None = None) -> Floats:
    """The share of known rows that each label is decided for, (K,); 0 where none is known."""
    known = np.broadcast_to(np.True_, decisions.shape) if known is None else known
    decided = np.count_nonzero(decisions & known, axis=0)
    return np.asarray(decided / np.maximum(np.count_nonzero(known, axis=0), 1))


def transferred(how: Transfer, thresholds: Floats, out_of_fold: Floats, test: Floats) -> Floats:
    """The thresholds (K,) to decide test probabilities (M, K) by.

    A mean of several models is less spread than each of them, so a threshold that was found on single models'
    out-of-fold scores decides another share of the test rows.

    Args:
        how: `value` keeps the thresholds. `rate` keeps, label by label, the share of rows at or above the threshold,
            before any row rule, up to ties: it supposes that labels are as frequent in the test as in training.
            With fewer than 200 test rows a share is mostly chance, and the thresholds are kept.
        thresholds: (K,) fitted on the out-of-fold probabilities.
        out_of_fold: (N, K) the probabilities that they were fitted on.
        test: (M, K).
    """
    if how == "value" or len(test) < FEWEST_ROWS:
        return thresholds
    shares = (out_of_fold >= thresholds).mean(axis=0)
    counts = np.rint(shares * len(test)).astype(np.int64)
    moved = [quantile_threshold(scores, int(count)) for scores, count in zip(test.T, counts, strict=True)]
    return np.where((counts == 0) & (test.max(axis=0) >= 1.0), ABOVE_ONE, np.array(moved))
