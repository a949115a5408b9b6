"""Findings on labels: their counts, which occur together or never, and which are too rare for the folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.findings import Finding, finding_if, plural
from pipeline.competition.folds import fold_table

ENOUGH = 10  # rows: with fewer, "always" and "never" may be chance
_SHOWN = 200  # pairs that are listed; the others are only counted
_COMPARED = 2000  # labels whose pairs are counted: all pairs of 100,000 labels need 120 GB


def label_findings(
    targets: NDArray[Any], labels: Sequence[str], folds: NDArray[np.int64] | None
) -> tuple[list[Finding], dict[str, Any]]:
    """Findings and numbers of targets (N, K) of 0 and 1. `folds` is (N,), or None if they could not be made."""
    counts = targets.sum(axis=0, dtype=np.int64)
    compared = np.sort(np.argsort(-counts, kind="stable")[:_COMPARED])
    names = [labels[label] for label in compared]
    positive = targets[:, compared].astype(np.float32)
    together = np.rint(positive.T @ positive).astype(np.int64)  # (C, C); exact in float32 up to 16 million rows
    bare = int((targets.sum(axis=1) == 0).sum())
    implied, exclusive = _implied(together, names), _exclusive_sets(together, len(targets), names)
    never = [name for name, count in zip(labels, counts.tolist(), strict=True) if count == 0]
    found = finding_if(
        never, "warning", "label_never", "{} labels have no known positive", "they cannot be learnt; check the table"
    )
    if len(labels) > _COMPARED:
        found.append(Finding("note", "labels_not_compared", f"pairs of labels: of the {_COMPARED} most frequent only"))
    if bare:
        found.append(Finding("note", "rows_without_labels", f"{plural(bare, 'row')} of {len(targets)} have no label"))
    found += finding_if(implied[:_SHOWN], "note", "labels_implied", f"{len(implied)} times a label implies another")
    found += finding_if(
        exclusive, "note", "labels_exclusive", "{} sets of labels never meet (labels.exclusive can hold them)"
    )
    if folds is not None:
        remedy = "use fewer folds, or read the scores of these labels with care"
        lines = fold_table(folds, targets, labels).warnings()
        found += finding_if(lines, "warning", "labels_rare", "{} labels are too rare for the folds", remedy)
    figures = {
        "counts": dict(zip(labels, counts.tolist(), strict=True)),
        "labels_per_row": float(targets.sum(axis=1).mean()) if len(targets) else 0.0,
        "rows_without_labels": bare,
        "most_together": _most_together(together, names),
    }
    return found, figures


def _implied(together: NDArray[np.int64], labels: Sequence[str]) -> list[str]:
    """`a -> b` if all rows with a, at least ENOUGH, have b; `a = b` if that holds both ways."""
    counts = np.diagonal(together)
    always = (together == counts[:, None]) & (counts >= ENOUGH)[:, None]
    np.fill_diagonal(always, False)
    lines = []
    for a, b in np.argwhere(always).tolist():
        if always[b, a]:
            lines += [f"{labels[a]} = {labels[b]}"] if a < b else []
        else:
            lines.append(f"{labels[a]} -> {labels[b]}")
    return lines


def _exclusive_sets(together: NDArray[np.int64], rows: int, labels: Sequence[str]) -> list[tuple[str, ...]]:
    """Sets of labels that never occur together, although ENOUGH rows would have both by chance.

    Greedy, frequent labels first: a label joins the first set whose labels it never meets. So a set cannot be
    extended, but other sets are possible.
    """
    counts = np.diagonal(together)
    expected = np.outer(counts, counts) / max(1, rows)
    apart = (together == 0) & (expected >= ENOUGH)
    sets: list[list[int]] = []
    free = np.zeros_like(apart)  # (sets, K): the labels that meet none of a set
    for label in np.argsort(-counts, kind="stable").tolist():
        found = np.flatnonzero(free[: len(sets), label])
        if found.size:
            sets[found[0]].append(label)
            free[found[0]] &= apart[label]
        else:
            free[len(sets)] = apart[label]
            sets.append([label])
    return [tuple(labels[label] for label in one) for one in sets if len(one) > 1]


def _most_together(together: NDArray[np.int64], labels: Sequence[str], limit: int = 20) -> list[list[Any]]:
    first, second = np.triu_indices(len(labels), 1)
    order = np.argsort(-together[first, second], kind="stable")[:limit]
    pairs = zip(first[order].tolist(), second[order].tolist(), strict=True)
    return [[labels[i], labels[j], int(together[i, j])] for i, j in pairs if together[i, j]]
