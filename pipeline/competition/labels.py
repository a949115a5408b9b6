"""Label encodings: what stands in a CSV's cells to and from multi-hot targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import CompetitionError, listing

_CELLS = {"0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0}


def decode_wide(frame: pd.DataFrame, columns: Sequence[str], *, path: Path, id_column: str) -> NDArray[np.float32]:
    """Multi-hot targets (N, K) from one 0/1 column per label.

    Raises:
        CompetitionError: a column is missing from `path`, or a cell is not 0 or 1; the first bad cells are
            named by id and label.
    """
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise CompetitionError(
            f"{path}: label columns are missing: {listing(missing)}",
            expected=f"a 0/1 column for each of {listing(columns)}",
            got=f"columns {listing(frame.columns, 12)}",
            remedy="correct the CSV, or list the label columns in competition.labels.columns",
        )
    cells = frame[list(columns)].apply(lambda column: column.str.strip().map(_CELLS))
    targets: NDArray[np.float32] = cells.to_numpy(dtype=np.float32)
    rows, labels = np.nonzero(np.isnan(targets))
    if len(rows):
        bad = [
            f"{frame[id_column].iloc[row]}/{columns[label]} = '{frame[columns[label]].iloc[row]}'"
            for row, label in zip(rows[:6].tolist(), labels[:6].tolist(), strict=True)
        ]
        raise CompetitionError(
            f"{path}: {len(rows)} label cells are not 0 or 1",
            expected="0 or 1 in every label column",
            got=listing(bad),
            remedy="correct these cells, or list only true label columns in competition.labels.columns",
        )
    return targets


def split_names(cell: str, separator: str) -> list[str]:
    """The names in one delimited cell, blanks around them removed; an empty cell holds none."""
    return [name for name in (part.strip() for part in cell.split(separator)) if name]


def label_names(cells: Sequence[str], separator: str) -> tuple[str, ...]:
    """All names that occur in delimited cells: by value where all are whole numbers, else alphabetical."""
    found = {name for cell in cells for name in split_names(cell, separator)}
    if all(name.isdecimal() for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))


def decode_delimited(cells: Sequence[str], labels: Sequence[str], separator: str) -> NDArray[np.float32]:
    """Multi-hot targets (N, K) of cells that hold names out of `labels`; ValueError for a foreign name."""
    position = {name: index for index, name in enumerate(labels)}
    targets = np.zeros((len(cells), len(labels)), dtype=np.float32)
    for row, cell in enumerate(cells):
        for name in split_names(cell, separator):
            if name not in position:
                raise ValueError(f"expected names out of {listing(labels)}, got '{name}'")
            targets[row, position[name]] = 1.0
    return targets


def encode_delimited(decisions: NDArray[np.uint8], labels: Sequence[str], separator: str) -> list[str]:
    """One cell per row of `decisions` (N, K): the names decided for, in label order, joined."""
    names = np.asarray(labels, dtype=object)
    return [separator.join(names[row.astype(bool)]) for row in decisions]
