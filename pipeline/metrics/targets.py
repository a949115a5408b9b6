"""The room's arrays, and the one check that callers' tables are what the docstrings promise.

Tables (N, K) may lie in memory as they like. Those of the room itself lie label by label: most work is done on one
label's column, which is then one piece of memory, as it is in a parquet file.
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
    """The same table (N, K), each label's column in one piece of memory; a copy only where it is not."""
    return np.asfortranarray(table)


def take_rows(table: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
    """A copy of some rows, a mask (N,) or numbers, of a table (N, K), label by label: numpy itself would turn it."""
    taken: NDArray[Any] = table.T[:, rows].T
    return taken


def blocks(count: int, size: int) -> Iterator[slice]:
    """Slices that cover 0 to `count` in turn, of `size` each or as much as is left."""
    return (slice(first, min(first + size, count)) for first in range(0, count, size))


def split_targets(targets: Targets) -> tuple[Bits, Known]:
    """Targets (N, K) as bits, uint8 with 0 where unknown, and which cells are known.

    Args:
        targets: 0/1 as integers or booleans; or floating-point in [0, 1], where a soft target counts as a
            positive from 0.5 on and NaN says that nobody knows.

    Raises:
        ValueError: not a table with a row and a label at least, or values other than these.
    """
    table: NDArray[Any] = np.asarray(targets)
    if table.ndim != 2 or table.size == 0 or table.dtype.kind not in "biuf":
        raise ValueError(f"expected targets 0/1, or in [0, 1] with NaN for unknown, (N, K), got {_kind(table)}")
    if table.dtype.kind != "f":
        return checked_bits(table), np.broadcast_to(np.True_, table.shape)  # takes no memory
    unknown = np.isnan(table)
    if ((table < 0.0) | (table > 1.0)).any():
        raise ValueError(f"expected targets in [0, 1], NaN for unknown, got {_kind(table[~unknown])}")
    return (table >= POSITIVE_FROM).astype(np.uint8), ~unknown


def checked_bits(table: Binary) -> Bits:
    """Targets or decisions (N, K) as uint8, without a copy where the type allows.

    Raises:
        ValueError: not a table with a row and a label at least, or not 0/1 in integers or booleans.
    """
    cells: NDArray[Any] = np.asarray(table)
    if cells.ndim != 2 or cells.size == 0 or cells.dtype.kind not in "biu":
        raise ValueError(f"expected 0/1 integers or booleans of shape (N, K), got {_kind(cells)}")
    if cells.dtype.kind != "b" and (cells.min() < 0 or cells.max() > 1):
        raise ValueError(f"expected only 0 and 1, got values from {cells.min()} to {cells.max()}")
    return cells.astype(np.uint8, copy=False)


def checked_pair(targets: Targets, decisions: Binary) -> tuple[Bits, Known, Bits]:
    """Targets (N, K) as `split_targets` gives them, and decisions (N, K) 0/1.

    Raises:
        ValueError: as `split_targets` and `checked_bits`, or the shapes differ.
    """
    bits, known = split_targets(targets)
    chosen = checked_bits(decisions)
    _same_shape(bits, chosen)
    return bits, known, chosen


def split_scores(targets: Targets, probabilities: Floats) -> tuple[Bits, Known, Floats]:
    """Targets (N, K) as `split_targets` gives them, and probabilities (N, K) as float64.

    Raises:
        ValueError: as `split_targets`; or the shapes differ, or a probability is NaN or outside [0, 1].
    """
    bits, known = split_targets(targets)
    table = np.asarray(probabilities)
    _same_shape(bits, table)
    # Written so that NaN, for which every comparison is false, is refused too.
    if table.dtype.kind != "f" or not (table.min() >= 0.0 and table.max() <= 1.0):
        raise ValueError(f"expected floating-point probabilities in [0, 1], got {_kind(table)}")
    return bits, known, table.astype(np.float64, copy=False)


def _same_shape(targets: NDArray[Any], values: NDArray[Any]) -> None:
    if targets.shape != values.shape:
        raise ValueError(f"expected the shape of the targets, {targets.shape}, got {values.shape}")


def _kind(table: NDArray[Any]) -> str:
    spread = f" from {table.min()} to {table.max()}" if table.size and table.dtype.kind in "fiu" else ""
    return f"{table.dtype} of shape {table.shape}{spread}"
