"""Multi-label stratified folds: groups stay whole, and the order of rows and columns does not matter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from numpy.typing import NDArray

from pipeline.errors import FoldError, listing, nearest

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

ALWAYS_TRAIN = -1
"""The fold of a row that every fold trains on and none validates on."""

FEWEST_PER_FOLD = 100
"""Labels with fewer positives per fold are not in `FoldTable.label_deviation`: a row is over 1 % of them."""

# How hard the refinement searches. With 30,000 to 100,000 rows, 10 to 80 labels and 5 folds it ends by itself
# after 10 to 150 rounds and adds about a fifth to the library's time; more of either gains under 0.0005.
_CANDIDATES = 128
_ROUNDS = 300


def make_folds(
    ids: Sequence[str],
    targets: NDArray[Any],
    labels: Sequence[str],
    *,
    count: int,
    seed: int,
    groups: Sequence[str] | None = None,
) -> IntArray:
    """The fold, 0 to `count` − 1, of each row in the order of `ids`.

    Rows (or, with `groups`, whole groups) are dealt by iterative stratification (Sechidis, Tsoumakas and
    Vlahavas, "On the Stratification of Multi-Label Data", 2011), which sees a group as one row with all
    its labels; moves and swaps then even out the label counts and the sizes in rows. Every fold gets a row.
    A row's fold is a function of the set of (id, group, targets) and the seed: the order of rows and of label
    columns and the number of threads change nothing.

    Args:
        ids: N distinct ids.
        targets: (N, K) of 0 and 1, K >= 1.
        labels: K distinct names.
        count: number of folds, from 2 to the number of rows or groups.
        seed: any integer; decides between equally good folds.
        groups: N names; rows of one name share a fold.

    Raises:
        FoldError: `count` does not fit, an id comes twice, a target is not 0 or 1, a row has no group.
        ValueError: the lengths of the arguments disagree, or a label name comes twice.
    """
    _check_lengths(ids, targets, labels, groups)
    _check_rows(ids, targets, labels, groups)
    unit_names = sorted(set(ids if groups is None else groups))
    _check_count(count, len(unit_names), "rows" if groups is None else "groups")

    position = {name: i for i, name in enumerate(unit_names)}
    unit = np.array([position[name] for name in (ids if groups is None else groups)])  # (N,) in 0 to U - 1
    columns = [targets[:, column] for column in np.argsort(np.array(labels))] + [np.ones(len(ids))]
    # (U, K + 1): the positives of each label, and the rows
    weights = np.stack([np.bincount(unit, column) for column in columns], axis=1, dtype=np.float64)

    seed %= 2**32  # the library takes no other
    folds = _stratify(weights[:, :-1] > 0, count, seed)
    folds = _even_out(folds, weights, count, seed)
    assert len(np.unique(folds)) == count
    of_rows: IntArray = folds[unit]
    return of_rows


def _check_lengths(
    ids: Sequence[str], targets: NDArray[Any], labels: Sequence[str], groups: Sequence[str] | None
) -> None:
    if not labels or targets.shape != (len(ids), len(labels)):
        raise ValueError(f"expected targets of shape (ids, labels) = ({len(ids)}, {len(labels)}), got {targets.shape}")
    if groups is not None and len(groups) != len(ids):
        raise ValueError(f"expected one group per id, got {len(groups)} groups for {len(ids)} ids")
    if len(set(labels)) != len(labels):
        raise ValueError(f"expected distinct labels, got {listing(_repeated(labels))} more than once")


def _check_rows(ids: Sequence[str], targets: NDArray[Any], labels: Sequence[str], groups: Sequence[str] | None) -> None:
    if len(set(ids)) != len(ids):
        raise FoldError(
            "folds need distinct ids",
            expected="each id once",
            got=f"more than once: {listing(_repeated(ids))}",
            remedy="remove the duplicate rows, or choose an id column that tells them apart",
        )
    wrong = (targets != 0) & (targets != 1)  # NaN differs from both
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise FoldError(
            f"folds need targets of 0 and 1; {wrong.sum()} of {targets.size} cells hold something else",
            expected="0 or 1",
            got=f"{targets[row, column]} for id '{ids[row]}', label '{labels[column]}'",
            remedy="decide for each soft or unknown cell whether it counts as positive before making folds",
        )
    if groups is not None:
        bare = [name for name, group in zip(ids, groups, strict=True) if not isinstance(group, str) or not group]
        if bare:
            raise FoldError(
                f"{len(bare)} rows have no group",
                expected="a name in the group column of every row",
                got=f"none for {listing(bare)}",
                remedy="fill the group column; a row that belongs to nobody gets its own id as its group",
            )


def _check_count(count: int, units: int, kind: str) -> None:
    if not 2 <= count <= units:
        raise FoldError(
            f"{count} folds cannot be made from {units} {kind}",
            expected=f"from 2 folds to one per {kind.removesuffix('s')}, {units}",
            got=str(count),
            remedy="change the number of folds" + (", or the group column" if kind == "groups" else ""),
        )


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]


def _stratify(positive: NDArray[np.bool_], count: int, seed: int) -> IntArray:
    """Iterative stratification of (U, K) booleans to U folds."""
    if positive.shape[1] == 1:  # the library refuses a single column; one that nobody has changes nothing
        positive = np.column_stack([positive, np.zeros_like(positive)])
    folds = np.empty(len(positive), dtype=np.int64)
    splitter = MultilabelStratifiedKFold(n_splits=count, shuffle=True, random_state=seed)
    for fold, (_, validation) in enumerate(splitter.split(positive, positive)):
        folds[validation] = fold
    return folds


def _even_out(folds: IntArray, weights: FloatArray, count: int, seed: int) -> IntArray:
    """Move and swap units between folds while the folds become more alike.

    What falls is Pearson's χ² against perfectly even folds, Σ (share − ideal)² / ideal over folds and the
    columns of `weights` (U, K + 1): label counts and the size in rows. Every step must lower it, hence the
    search ends. A fold never gives away the unit that holds all it has of a column, so no label disappears
    from a fold and no fold becomes empty.

    Scaled weights are whole numbers small enough for float64 to add them exactly, so that the result depends
    neither on the machine's matrix routines nor on their number of threads.
    """
    ideal = np.maximum(1 / count, weights.sum(axis=0) / count)  # a label of nobody weighs nothing anyway
    scale = np.maximum(1, np.round(np.sqrt(2**49 / (count * weights.sum()) / ideal)))
    sums = (np.arange(count)[:, None] == folds) @ weights * scale  # (F, K + 1)
    folds = folds.copy()
    rng = np.random.default_rng(seed)
    for _ in range(_ROUNDS):
        pool = rng.permutation(len(folds))[: count * _CANDIDATES]
        swaps = 0
        for a, b in combinations(range(count), 2):
            ours, x = _candidates(pool[folds[pool] == a], weights, scale, sums[a])
            theirs, z = _candidates(pool[folds[pool] == b], weights, scale, sums[b])
            give, take, gain = _best_swap(x, z, sums[a] - sums[b])
            if gain > 0:
                sums[a] += z[take] - x[give]
                sums[b] += x[give] - z[take]
                folds[ours[give : give + 1]] = b  # the slice is empty for the row of zeros
                folds[theirs[take : take + 1]] = a
                swaps += 1
        if swaps == 0:
            break
    return folds


def _candidates(
    units: IntArray, weights: FloatArray, scale: FloatArray, fold_sum: FloatArray
) -> tuple[IntArray, FloatArray]:
    """The C `units` of a fold that may go, and their scaled weights (C + 1, K + 1).

    The last row is of zeros: exchanging a unit for it is a move.
    """
    scaled = weights[units] * scale
    last_of_fold = ((scaled == fold_sum) & (scaled > 0)).any(axis=1)
    return units[~last_of_fold], np.vstack([scaled[~last_of_fold], np.zeros_like(scale)])


def _best_swap(x: FloatArray, z: FloatArray, difference: FloatArray) -> tuple[int, int, float]:
    """The rows i of `x` and j of `z` whose exchange makes two folds most alike, and its gain y·d − |y|².

    d is the `difference` of the folds' sums and y = x[i] − z[j] what is handed over; the two folds' part of χ²
    falls from |d|² / 2 to |d − 2y|² / 2, which is by twice the gain.
    """
    gain = 2 * x @ z.T
    gain += (x @ difference - (x * x).sum(axis=1))[:, None]
    gain -= z @ difference + (z * z).sum(axis=1)
    i, j = divmod(int(gain.argmax()), len(z))
    return i, j, float(gain[i, j])


def read_fold_file(path: Path, ids: Sequence[str], *, groups: Sequence[str] | None = None) -> IntArray:
    """The folds of `ids`, in their order, from a CSV with the columns id and fold; other columns are ignored.

    Folds are 0, 1, … without a gap, or −1 for a row that every fold trains on and none validates on.

    Args:
        path: a UTF-8 CSV with exactly one row for each of `ids`, in any order.
        ids: N distinct ids.
        groups: N names; rows of one name must share a fold, −1 included.

    Raises:
        FoldError: naming `path`, where any of this does not hold, or a fold would have no row to train on.
    """
    table = _read_table(path)
    fold_of = dict(zip(table["id"], _whole_numbers(path, table), strict=True))
    known = set(ids)
    if repeated := _repeated(table["id"]):
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
    if groups is not None:
        _check_groups_whole(path, folds, groups)
    return folds


def _unusable(path: Path, expected: str, got: str, remedy: str) -> FoldError:
    return FoldError(f"{path}: not a usable fold file", expected=expected, got=got, remedy=remedy)


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, na_filter=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: pandas on an empty, a torn or a non-UTF-8 file
        raise _unusable(
            path,
            "a CSV file in UTF-8",
            str(error).strip(),
            "correct the path of the fold file, or its format",
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


def _check_groups_whole(path: Path, folds: IntArray, groups: Sequence[str]) -> None:
    folds_of: dict[str, set[int]] = {}
    for group, fold in zip(groups, folds.tolist(), strict=True):
        folds_of.setdefault(group, set()).add(fold)
    split = {group: sorted(found) for group, found in folds_of.items() if len(found) > 1}
    if split:
        name, found = next(iter(split.items()))
        raise _unusable(
            path,
            "each group in one fold, so that no validation row has a sibling in training",
            f"group '{name}' in folds {listing(found)}; {len(split)} such groups",
            "put all rows of a group into one fold, or configure no group column",
        )


@dataclass(frozen=True, eq=False)
class FoldTable:
    """How evenly folds share the rows and the positives of each label: pure data, from `fold_table`.

    Attributes:
        labels: K names.
        positives: (K, F) positive rows of each label in each validation fold.
        sizes: (F,) rows of each validation fold.
        always_train: rows of fold −1; they count nowhere else in the table.
        size_deviation: largest |size / mean size − 1| over the folds.
        label_deviations: (K,) largest |share / mean share − 1| over the folds; NaN for a label that has no
            positives.
        label_deviation: the largest of these over the labels with at least `FEWEST_PER_FOLD` positives per
            fold on average; None where there is no such label.
        missing: for each label that has no positive in some fold, those folds.
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
        """One sentence for each label that misses a fold, in the order of `labels`."""
        totals = dict(zip(self.labels, self.positives.sum(axis=1).tolist(), strict=True))
        return [_missing_sentence(label, totals[label], folds) for label, folds in self.missing.items()]


def _missing_sentence(label: str, total: int, folds: tuple[int, ...]) -> str:
    if total == 0:
        return f"label '{label}' has no positive row in any validation fold: it is never scored"
    rows = "1 positive row" if total == 1 else f"{total} positive rows"
    where = "fold" if len(folds) == 1 else "folds"
    return f"label '{label}' has {rows}, none in {where} {', '.join(map(str, folds))}: it is not scored there"


def fold_table(folds: IntArray, targets: NDArray[Any], labels: Sequence[str]) -> FoldTable:
    """Count sizes and positives of the validation folds 0 to F − 1.

    Args:
        folds: (N,) as from `make_folds` or `read_fold_file`.
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
