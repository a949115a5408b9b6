"""Read folds from the file `folds.file`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.competition.folds.rows import ALWAYS_TRAIN
from pipeline.competition.folds.stratify import IntArray
from pipeline.errors import FoldError, listing, nearest, repeated_names
from pipeline.machine import regular


def read_fold_file(path: Path, ids: Sequence[str]) -> IntArray:
    """The folds (N,) of `ids`, in their order, from a CSV with the columns id and fold; other columns are ignored.

    Folds are 0, 1, … without a gap, or `ALWAYS_TRAIN`.

    Args:
        path: a UTF-8 CSV with exactly one row for each of `ids`, in any order.
        ids: N distinct ids.

    Raises:
        FoldError: any of this does not hold, or a fold would have no row to train on.
    """
    table = _read_table(path)
    fold_of = dict(zip(table["id"], _whole_numbers(path, table), strict=True))
    known = set(ids)
    if repeated := repeated_names(table["id"]):
        raise _unusable(path, "each id once", f"more than once: {listing(repeated)}", "remove the repeats")
    if unknown := [name for name in fold_of if name not in known]:
        raise _unusable(
            path,
            f"only the {len(known)} ids of the training table",
            f"{len(unknown)} others: {listing(unknown)}",
            "remove their rows, or check that the file belongs to this training table",
        )
    if missing := [name for name in ids if name not in fold_of]:
        raise _unusable(
            path,
            f"a row for each of the {len(known)} ids of the training table",
            f"none for {len(missing)}: {listing(missing)}",
            f"add them; fold {ALWAYS_TRAIN} means always train, never validate",
        )
    folds = np.array([fold_of[name] for name in ids], dtype=np.int64)
    _check_numbering(path, folds)
    return folds


def _unusable(path: Path, expected: str, got: str, remedy: str) -> FoldError:
    return FoldError(f"{path}: not a usable fold file", expected=expected, got=got, remedy=remedy)


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(regular(path), dtype=str, na_filter=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # pandas raises ValueError on an empty, a torn or a non-UTF-8 file
        raise _unusable(
            path,
            "a CSV file in UTF-8",
            str(error).strip(),
            "correct folds.file, or the format of that file",
        ) from error
    for column in ("id", "fold"):
        if column not in table.columns:
            got = listing(table.columns) + nearest(column, table.columns)
            raise _unusable(path, f"a column '{column}'", got, "name the columns id and fold")
    return table


def _whole_numbers(path: Path, table: pd.DataFrame) -> list[int]:
    wrong = table[~table["fold"].str.fullmatch(r"\d{1,9}|-1")]
    if len(wrong):
        raise _unusable(
            path,
            f"0, 1, 2, …, or {ALWAYS_TRAIN} for always train, in the column fold",
            f"'{wrong['fold'].iloc[0]}' for id '{wrong['id'].iloc[0]}'; {len(wrong)} such rows",
            "write the folds as whole numbers",
        )
    return [int(text) for text in table["fold"]]


def _check_numbering(path: Path, folds: IntArray) -> None:
    used = set(folds.tolist()) - {ALWAYS_TRAIN}
    if not used:
        raise _unusable(path, "a validation fold", f"only {ALWAYS_TRAIN}", "give some rows a fold from 0")
    if len(used) <= max(used):
        gap = next(fold for fold in range(max(used)) if fold not in used)
        raise _unusable(
            path,
            f"every fold from 0 to the largest, {max(used)}",
            f"no row in fold {gap}",
            "number the folds without a gap",
        )
    if used == {0} and ALWAYS_TRAIN not in folds:
        raise _unusable(
            path,
            "rows to train on besides the validation fold",
            "fold 0 for every row",
            f"make more folds, or give the rows to train on the fold {ALWAYS_TRAIN}",
        )


def split_groups(groups: Sequence[str] | None, folds: IntArray) -> dict[str, list[int]]:
    """The groups with rows in several folds, each with these folds; `ALWAYS_TRAIN` counts as a fold."""
    folds_of: dict[str, set[int]] = {}
    for group, fold in zip(groups or (), folds.tolist(), strict=groups is not None):
        folds_of.setdefault(group, set()).add(fold)
    return {group: sorted(found) for group, found in folds_of.items() if len(found) > 1}


def refuse_split_groups(path: Path, groups: Sequence[str] | None, folds: IntArray) -> None:
    """Raise FoldError if the fold file at `path` puts rows of one group into several folds."""
    split = split_groups(groups, folds)
    if split:
        name, found = next(iter(split.items()))
        raise _unusable(
            path,
            "each group in one fold, so that no group has rows both in training and in validation",
            f"group '{name}' in folds {listing(found)}; {len(split)} such groups",
            "put all rows of a group into one fold, or configure no group column",
        )
