"""The room's arrays, and the one check that callers' tables are what the docstrings promise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Binary = NDArray[np.uint8] | NDArray[np.bool_]
Bits = NDArray[np.uint8]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def checked_targets(targets: Binary) -> Bits:
    """Targets or decisions (N, K) as uint8, without a copy where the type allows.

    Raises:
        ValueError: not a table with a row and a label at least, or not 0/1 in integers or booleans.
    """
    table = np.asarray(targets)
    if table.ndim != 2 or table.size == 0 or table.dtype.kind not in "biu":
        raise ValueError(f"expected 0/1 integers or booleans of shape (N, K), got {_kind(table)}")
    if table.dtype.kind != "b" and (table.min() < 0 or table.max() > 1):
        raise ValueError(f"expected only 0 and 1, got values from {table.min()} to {table.max()}")
    return table.astype(np.uint8, copy=False)


def checked_pair(targets: Binary, decisions: Binary) -> tuple[Bits, Bits]:
    """Targets and decisions (N, K), both 0/1 and of one shape; raises ValueError as `checked_targets`."""
    pair = checked_targets(targets), checked_targets(decisions)
    _same_shape(*pair)
    return pair


def checked_scores(targets: Binary, probabilities: Floats) -> tuple[Bits, Floats]:
    """Targets (N, K) as uint8 and probabilities (N, K) as float64.

    Raises:
        ValueError: as `checked_targets`; or the shapes differ, or a probability is NaN or outside [0, 1].
    """
    bits, table = checked_targets(targets), np.asarray(probabilities)
    _same_shape(bits, table)
    # Written so that NaN, for which every comparison is false, is refused too.
    if table.dtype.kind != "f" or not (table.min() >= 0.0 and table.max() <= 1.0):
        raise ValueError(f"expected floating-point probabilities in [0, 1], got {_kind(table)}")
    return bits, table.astype(np.float64, copy=False)


def _same_shape(targets: NDArray[Any], values: NDArray[Any]) -> None:
    if targets.shape != values.shape:
        raise ValueError(f"expected the shape of the targets, {targets.shape}, got {values.shape}")


def _kind(table: NDArray[Any]) -> str:
    spread = f" from {table.min()} to {table.max()}" if table.size and table.dtype.kind in "fiu" else ""
    return f"{table.dtype} of shape {table.shape}{spread}"
