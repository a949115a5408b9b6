"""Findings on duplicate images: the same bytes, the same pixels or nearly so, in train, across folds and in test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.audit.findings import Finding, Pair, finding_if
from pipeline.competition.groups import describe_source
from pipeline.competition.paths import ImagePaths
from pipeline.config import GroupImages, GroupSource
from pipeline.errors import ImageError
from pipeline.images.decoding.decode import read_image
from pipeline.images.geometry import Reading
from pipeline.images.image_stats import ImageStats
from pipeline.images.near_duplicates import near_pairs

RowPair = tuple[int, int, str, float]  # two rows, `bytes`, `pixels` or `near`, their similarity


def duplicate_rows(stats: Sequence[ImageStats], paths: Sequence[ImagePaths], *, turned: bool) -> list[RowPair]:
    """All pairs of rows with the same bytes, the same pixels or nearly the same pixels, the smaller row first.

    Rows with the same bytes are paired with the first of them only, and only the first is compared by its pixels.
    """
    first_of: dict[bytes, int] = {}
    pairs: list[RowPair] = []
    for row, image in enumerate(stats):
        if image.problem is None and (first := first_of.setdefault(image.digest, row)) != row:
            pairs.append((first, row, "bytes", 1.0))
    rows = [row for row in first_of.values() if stats[row].thumbnail is not None]
    thumbnails = [thumbnail for row in rows if (thumbnail := stats[row].thumbnail) is not None]
    if not rows:
        return pairs
    near = near_pairs(np.stack(thumbnails), turned=turned)
    for i, j, similarity in zip(near.first.tolist(), near.second.tolist(), near.similarity.tolist(), strict=True):
        how = "pixels" if similarity > 0.999 and _same_pixels(paths[rows[i]], paths[rows[j]]) else "near"
        pairs.append((rows[i], rows[j], how, round(similarity, 4)))
    return sorted(pairs)


def duplicate_findings(
    pairs: Sequence[RowPair],
    ids: Sequence[str],
    *,
    train_count: int,
    targets: NDArray[np.uint8],
    folds: NDArray[np.int64] | None,
    groups: Sequence[GroupSource] = (),
) -> list[Finding]:
    """Findings on the pairs that `duplicate_rows` returns for the train rows followed by the test rows.

    Args:
        pairs: rows from 0; those from `train_count` on are test rows.
        ids: of all rows.
        train_count: N.
        targets: (N, K) 0 or 1.
        folds: (N,) or None where they could not be made.
        groups: the sources of the groups that the config names.
    """

    def shown(choose: Callable[[int, int], bool]) -> list[Pair]:
        return [Pair(ids[i], ids[j], how, similarity) for i, j, how, similarity in pairs if choose(i, j)]

    def inside(_: int, j: int) -> bool:
        return j < train_count

    found = finding_if(shown(inside), "note", "duplicates_train", "{} pairs of train images are the same or nearly so")
    found += finding_if(
        shown(lambda i, j: inside(i, j) and bool((targets[i] != targets[j]).any())),
        "warning",
        "duplicates_disagree",
        "{} of these pairs have different labels",
        "look at them and correct the labels with competition.corrections, or take one out with competition.exclude",
    )
    if folds is not None:
        found += finding_if(
            shown(lambda i, j: inside(i, j) and bool(folds[i] != folds[j])),
            "warning",
            "duplicates_folds",
            "{} pairs of the same or nearly the same images lie in different folds: scores will flatter",
            _advice(groups),
        )
    found += finding_if(
        shown(lambda i, j: i < train_count <= j),
        "warning",
        "duplicates_test",
        "{} pairs of a train and a test image are the same or nearly so",
        "read the rules before using it; and expect more such images in a hidden test set, or less score there",
    )
    return found + finding_if(
        shown(lambda i, _: i >= train_count),
        "note",
        "duplicates_in_test",
        "{} pairs of test images are nearly the same",
    )


def _advice(groups: Sequence[GroupSource]) -> str:
    by_table = [describe_source(source) for source in groups if not isinstance(source, GroupImages)]
    wanted = "{images: near, turned: true}"
    if by_table:
        return f"put {wanted} into competition.groups beside {' and '.join(by_table)}, so that no fold separates them"
    return f"set competition.groups: {wanted}, so that no fold separates them"


def _same_pixels(ours: ImagePaths, theirs: ImagePaths) -> bool:
    if len(ours) != len(theirs):
        return False
    try:
        return all(
            np.array_equal(read_image((a,), Reading(channels=3)), read_image((b,), Reading(channels=3)))
            for a, b in zip(ours, theirs, strict=True)
        )
    except ImageError:
        return False
