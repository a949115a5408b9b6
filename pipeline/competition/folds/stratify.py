"""Stratified folds of rows or whole groups: iterative stratification, then moves and swaps that even them out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import FoldError, listing, repeated_names

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_LARGE = 10_000_000  # cells, which take the library 8 seconds

# Limits of the refinement. With 30,000 to 100,000 rows, 10 to 80 labels and 5 folds it ends by itself after 10 to
# 150 rounds and adds about a fifth to the library's time; raising either limit gains under 0.0005.
_CANDIDATES = 128
_ROUNDS = 300


def stratified_folds(
    ids: Sequence[str],
    targets: NDArray[Any],
    labels: Sequence[str],
    *,
    count: int,
    seed: int,
    groups: Sequence[str] | None = None,
) -> IntArray:
    """The fold, 0 to `count` − 1, of each row in the order of `ids`.

    Rows, or with `groups` whole groups, are dealt by iterative stratification (Sechidis, Tsoumakas and
    Vlahavas, "On the Stratification of Multi-Label Data", 2011). It treats a group as one row with all its labels.
    Moves and swaps then even out the label counts and the numbers of rows. Every fold gets a row. A row's fold depends
    only on the set of (id, group, targets) and on the seed, not on the order of rows or label columns or on the number
    of threads.

    Args:
        ids: N distinct ids.
        targets: (N, K) of 0 and 1, K >= 1.
        labels: K distinct names.
        count: number of folds, from 2 to the number of rows or groups.
        seed: any integer; chooses among equally good folds.
        groups: N names; rows of one name share a fold.

    Raises:
        FoldError: `count` does not fit, an id repeats, a target is not 0 or 1, or a row has no group.
        ValueError: the lengths of the arguments disagree, or a label name repeats.
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

    seed %= 2**32  # the library's range of seeds
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
        raise ValueError(f"expected distinct labels, got {listing(repeated_names(labels))} more than once")


def _check_rows(ids: Sequence[str], targets: NDArray[Any], labels: Sequence[str], groups: Sequence[str] | None) -> None:
    if len(set(ids)) != len(ids):
        raise FoldError(
            "folds need distinct ids",
            expected="each id once",
            got=f"more than once: {listing(repeated_names(ids))}",
            remedy="remove the duplicate rows, or choose an id column with distinct values",
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
                remedy="fill the group column; a row without companions gets its own id as its group",
            )


def _check_count(count: int, units: int, kind: str) -> None:
    if not 2 <= count <= units:
        raise FoldError(
            f"{count} folds cannot be made from {units} {kind}",
            expected=f"from 2 folds to one per {kind.removesuffix('s')}, {units}",
            got=str(count),
            remedy="set folds.count to one of these" + (", or the group column" if kind == "groups" else ""),
        )


def _stratify(positive: NDArray[np.bool_], count: int, seed: int) -> IntArray:
    """Iterative stratification of (U, K) booleans to U folds."""
    if positive.size > _LARGE:
        return _stratify_large(positive, count, seed)
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold  # imports scikit-learn, which takes two seconds

    if positive.shape[1] == 1:  # the library refuses a single column; a label without positives changes nothing
        positive = np.column_stack([positive, np.zeros_like(positive)])
    folds = np.empty(len(positive), dtype=np.int64)
    splitter = MultilabelStratifiedKFold(n_splits=count, shuffle=True, random_state=seed)
    for fold, (_, validation) in enumerate(splitter.split(positive, positive)):
        folds[validation] = fold
    return folds


def _stratify_large(positive: NDArray[np.bool_], count: int, seed: int) -> IntArray:
    """As `_stratify`, with the same draws and result, where the library takes minutes: it counts all rows per label.

    The label with the fewest rows left deals them, each to the fold that lacks most of this label, then most rows; ties
    are drawn.
    """
    rng = np.random.RandomState(seed)
    order = np.arange(len(positive))
    rng.shuffle(order)
    shuffled = positive[order]
    has = np.ascontiguousarray(shuffled.T)  # (K, U)
    ends = np.cumsum(shuffled.sum(axis=1)).tolist()
    labels_of = [part.tolist() for part in np.split(np.nonzero(shuffled)[1], ends[:-1])]
    left = has.sum(axis=1)  # (K,) rows that are not dealt yet
    lacking = [[1 / count * total] * count for total in left.tolist()]  # by label and fold
    room = [1 / count * len(order)] * count
    waiting = np.ones(len(order), dtype=np.bool_)
    folds = np.empty(len(order), dtype=np.int64)

    def deal(rows: IntArray, wanted: list[float]) -> None:
        for row in rows.tolist():
            best = _largest(room, _largest(wanted, range(count)))
            fold = best[rng.randint(len(best))] if len(best) > 1 else best[0]
            folds[order[row]] = fold
            room[fold] -= 1
            for label in labels_of[row]:
                lacking[label][fold] -= 1
        waiting[rows] = False

    while left.any():
        rarest = np.flatnonzero(left == left[left > 0].min())
        label = int(rarest[rng.randint(len(rarest))] if len(rarest) > 1 else rarest[0])
        rows = np.flatnonzero(has[label] & waiting)
        deal(rows, lacking[label])
        left -= np.bincount([label for row in rows.tolist() for label in labels_of[row]], minlength=len(left))
    deal(np.flatnonzero(waiting), room)
    return folds


def _largest(values: Sequence[float], among: Sequence[int]) -> list[int]:
    """Those of the indices `among` at which `values` is largest."""
    most = max(values[index] for index in among)
    return [index for index in among if values[index] == most]


def _even_out(folds: IntArray, weights: FloatArray, count: int, seed: int) -> IntArray:
    """Move and swap units between folds while the folds become more alike.

    Each step lowers Pearson's χ² against perfectly even folds, Σ (share − ideal)² / ideal over the folds and the
    columns of `weights` (U, K + 1): the label counts and the number of rows. So the search ends. A unit that holds all
    that its fold has of a column stays, so that no fold loses a label or becomes empty.

    Scaled weights are whole numbers, small enough for float64 to add them exactly. So the result depends neither on the
    machine's matrix routines nor on their number of threads.
    """
    ideal = np.maximum(1 / count, weights.sum(axis=0) / count)  # avoids 0 for a label without positives
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
    """The C `units` that may leave a fold, and their scaled weights (C + 1, K + 1).

    The last row is zeros: a swap with it is a move.
    """
    scaled = weights[units] * scale
    last_of_fold = ((scaled == fold_sum) & (scaled > 0)).any(axis=1)
    return units[~last_of_fold], np.vstack([scaled[~last_of_fold], np.zeros_like(scale)])


def _best_swap(x: FloatArray, z: FloatArray, difference: FloatArray) -> tuple[int, int, float]:
    """The rows i of `x` and j of `z` whose swap makes two folds most alike, and the gain y·d − |y|².

    d is the `difference` of the folds' sums, and y = x[i] − z[j] is handed over. The two folds' part of χ² falls from
    |d|² / 2 to |d − 2y|² / 2, which is twice the gain.
    """
    gain = 2 * x @ z.T
    gain += (x @ difference - (x * x).sum(axis=1))[:, None]
    gain -= z @ difference + (z * z).sum(axis=1)
    i, j = divmod(int(gain.argmax()), len(z))
    return i, j, float(gain[i, j])
