"""Array types of the metrics, and the check of the tables that callers hand in.

Tables (N, K) may have any memory layout. The metrics' own are in column order: most work is done on one label's
column, which is then contiguous, as it is in a parquet file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Binary = NDArray[np.uint8] | NDArray[np.bool_]
Bits = NDArray[np.uint8]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Known = NDArray[np.bool_]
Targets = Binary | NDArray[np.float32] | Floats

POSITIVE_FROM = 0.5  # a soft target from here on is a positive


def by_label(table: NDArray[Any]) -> NDArray[Any]:
    """The same table (N, K) in column order; copied only if it has another order."""
    return np.asfortranarray(table)


def take_rows(table: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
    """A copy of some rows, given as a mask (N,) or as indices, of a table (N, K), in column order."""
    taken: NDArray[Any] = table.T[:, rows].T  # table[rows] would be in row order
    return taken


def blocks(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of `size` that cover 0 to `count`; the last may be shorter."""
    return (slice(first, min(first + size, count)) for first in range(0, count, size))


def split_targets(targets: Targets) -> tuple[Bits, Known]:
    """Targets (N, K) as bits (N, K), uint8 with 0 where unknown, and the mask (N, K) of known cells.

    Args:
        targets: 0/1 as integers or booleans; or floating-point in [0, 1], where a soft target is a positive
            from 0.5 on and NaN marks an unknown cell.

    Raises:
        ValueError: the table has no row or no label, or other values.
    """
    table: NDArray[Any] = np.asarray(targets)
    if table.ndim != 2 or table.size == 0 or table.dtype.kind not in "biuf":
        raise ValueError(f"expected targets 0/1, or in [0, 1] with NaN for unknown, (N, K), got {_described(table)}")
    if table.dtype.kind != "f":
        return checked_bits(table), np.broadcast_to(np.True_, table.shape)  # takes no memory
    unknown = np.isnan(table)
    if ((table < 0.0) | (table > 1.0)).any():
        raise ValueError(f"expected targets in [0, 1], NaN for unknown, got {_described(table[~unknown])}")
    return (table >= POSITIVE_FROM).astype(np.uint8), ~unknown


def checked_bits(table: Binary) -> Bits:
    """Targets or decisions (N, K) as uint8; not copied if they are uint8 already.

    Raises:
        ValueError: the table has no row or no label, or its cells are not 0/1 as integers or booleans.
    """
    cells: NDArray[Any] = np.asarray(table)
    if cells.ndim != 2 or cells.size == 0 or cells.dtype.kind not in "biu":
        raise ValueError(f"expected 0/1 integers or booleans of shape (N, K), got {_described(cells)}")
    if cells.dtype.kind != "b" and (cells.min() < 0 or cells.max() > 1):
        raise ValueError(f"expected only 0 and 1, got values from {cells.min()} to {cells.max()}")
    return cells.astype(np.uint8, copy=False)


def checked_pair(targets: Targets, decisions: Binary) -> tuple[Bits, Known, Bits]:
    """Bits and known cells of `split_targets`, and decisions (N, K) as uint8.

    Raises:
        ValueError: as `split_targets` and `checked_bits`, or the shapes differ.
    """
    bits, known = split_targets(targets)
    chosen = checked_bits(decisions)
    _same_shape(bits, chosen)
    return bits, known, chosen


def split_scores(targets: Targets, probabilities: Floats) -> tuple[Bits, Known, Floats]:
    """Bits and known cells of `split_targets`, and probabilities (N, K) as float64.

    Raises:
        ValueError: as `split_targets`, the shapes differ, or a probability is NaN or outside [0, 1].
    """
    bits, known = split_targets(targets)
    table = np.asarray(probabilities)
    _same_shape(bits, table)
    # `not (a and b)` refuses NaN too: every comparison with it is false.
    if table.dtype.kind != "f" or not (table.min() >= 0.0 and table.max() <= 1.0):
        raise ValueError(f"expected floating-point probabilities in [0, 1], got {_described(table)}")
    return bits, known, table.astype(np.float64, copy=False)


def _same_shape(targets: NDArray[Any], values: NDArray[Any]) -> None:
    if targets.shape != values.shape:
        raise ValueError(f"expected the shape of the targets, {targets.shape}, got {values.shape}")


def _described(table: NDArray[Any]) -> str:
    bounds = f" from {table.min()} to {table.max()}" if table.size and table.dtype.kind in "fiu" else ""
    return f"{table.dtype} of shape {table.shape}{bounds}"
