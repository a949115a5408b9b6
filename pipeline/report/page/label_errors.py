"""Suspected label errors by confident learning (C. Northcutt, L. Jiang, I. Chuang, 2021), each label on its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.targets import Bits, Floats


def self_confidence(bits: Bits, probabilities: Floats) -> Floats:
    """The probability (N,) of the given target: p of a 1, 1 - p of a 0. Both arguments are (N,)."""
    return np.where(bits == 1, probabilities, 1.0 - probabilities)


def suspected(bits: Bits, probabilities: Floats) -> NDArray[np.bool_]:
    """Cells (N,) of one label that confident learning counts as wrong: the off-diagonal of the confident joint.

    The threshold of a class is the mean probability of the cells that are given this class. A cell is counted for each
    class that reaches its threshold, for the more probable one if both do (paper, section 3.1). It is suspected if
    that is not the given class, and not the less probable one (as cleanlab prunes it). A label that is given one class
    only has no suspected cell.

    Args:
        bits: (N,) given targets, 0 or 1.
        probabilities: (N,) out-of-fold.
    """
    if bits.size == 0 or bits.min() == bits.max():
        return np.zeros(bits.shape, dtype=np.bool_)
    positive = probabilities >= probabilities[bits == 1].mean()
    negative = 1.0 - probabilities >= (1.0 - probabilities[bits == 0]).mean()
    likely = probabilities > 0.5
    wrong: NDArray[np.bool_] = np.where(bits == 1, negative & ~likely, positive & likely)
    return wrong
