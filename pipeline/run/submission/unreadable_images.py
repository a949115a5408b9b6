"""Test images that cannot be read: their prediction, and the list of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import ImageError, listing
from pipeline.files import read_predictions, write_csv
from pipeline.images.dataset import EvalBatch

BROKEN_COLUMNS = ["id", "problem"]


def noting_problems(batches: Iterable[EvalBatch], problems: dict[int, str]) -> Iterator[EvalBatch]:
    """The batches, unchanged; adds the problems of their images to `problems`, by row."""
    for batch in batches:
        problems.update(batch.problems)
        yield batch


def mean_out_of_fold(files: Sequence[Path], labels: Sequence[str]) -> NDArray[np.float64]:
    """The mean out-of-fold probability (K,) of each label over all validated rows of runs, each run counting once.

    Args:
        files: the `oof.parquet` of each run.
        labels: K names.
    """
    means = [read_predictions(file, list(labels))[list(labels)].to_numpy(np.float64).mean(axis=0) for file in files]
    return np.asarray(np.mean(means, axis=0))


def fill_in(
    probabilities: NDArray[np.float64], problems: Mapping[int, str], fallback: NDArray[np.float64]
) -> NDArray[np.float64]:
    """`probabilities` (N, K) with `fallback` (K,) in the rows of `problems`.

    Raises:
        ImageError: no image can be read, which means a wrong folder.
    """
    if len(problems) == len(probabilities):
        raise ImageError(
            f"not one of {len(probabilities)} test images can be read",
            got=listing(problems.values(), 3),
            remedy="check competition.root, competition.images or --images",
        )
    filled = probabilities.copy()
    filled[list(problems)] = fallback
    return filled


def write_broken(path: Path, ids: Sequence[str], problems: Mapping[int, str]) -> list[str]:
    """Write the ids and problems of unreadable images to the CSV `path`; returns a note on them.

    Without any, there is no note, and the file of an earlier submission is deleted.
    """
    if not problems:
        path.unlink(missing_ok=True)
        return []
    rows = sorted(problems)
    broken = [ids[row] for row in rows]
    write_csv(path, pd.DataFrame(zip(broken, (problems[row] for row in rows), strict=True), columns=BROKEN_COLUMNS))
    return [
        f"{len(rows)} of {len(ids)} test images cannot be read and got each label's mean out-of-fold probability: "
        f"{listing(broken)} (listed in {path})"
    ]
