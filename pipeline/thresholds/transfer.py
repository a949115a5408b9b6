"""Transfer of thresholds from out-of-fold probabilities of single models to the mean of the models on the test set."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipeline.metrics.targets import Bits, Floats, Known
from pipeline.thresholds.fitting.line_search import ABOVE_ONE
from pipeline.thresholds.policies import quantile_threshold

Transfer = Literal["value", "rate"]
FEWEST_ROWS = 200  # of a test set: a share of fewer rows is mostly chance


def rates(decisions: Bits, known: Known | None = None) -> Floats:
    """Share of the known rows for which each label is predicted, (K,); 0 where no row is known."""
    known = np.broadcast_to(np.True_, decisions.shape) if known is None else known
    decided = np.count_nonzero(decisions & known, axis=0)
    return np.asarray(decided / np.maximum(np.count_nonzero(known, axis=0), 1))


def transferred(how: Transfer, thresholds: Floats, out_of_fold: Floats, test: Floats) -> Floats:
    """Thresholds (K,) for test probabilities (M, K).

    The mean of several models varies less than each of them, so a threshold fitted on out-of-fold probabilities
    of single models predicts a label for another share of the test rows.

    Args:
        how: `value` keeps the thresholds. `rate` keeps, for each label, the share of rows at or above the threshold,
            before any row rule and up to ties; it assumes that labels are as frequent in the test set as in
            training. With fewer than 200 test rows it keeps the thresholds.
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
