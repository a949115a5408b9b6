"""Join by id the rows that several finished runs have all validated, to compare or average the runs on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.competition.folds import cross_fitting_parts, group_numbers
from pipeline.competition.table import TrainTable
from pipeline.config import Config
from pipeline.errors import RunError, listing
from pipeline.files import read_folds, read_predictions
from pipeline.metrics.targets import Ints
from pipeline.run.folder import RunFolder


@dataclass(frozen=True, eq=False)
class JoinedOutOfFold:
    """N rows in the order of the training table.

    Attributes:
        ids: N ids.
        labels: K names, in the order of all columns below.
        positives: (N, K) see `TrainTable.positives`.
        targets: (N, K) see `TrainTable.truths`.
        groups: N names of the groups that the first run's folds kept whole, also those by images; None without groups.
        tables: of each run the columns `fold` and one probability per label.
        unshared: the number of rows that only some of the runs have validated so far.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    positives: NDArray[np.uint8]
    targets: NDArray[Any]
    groups: tuple[str, ...] | None
    tables: tuple[pd.DataFrame, ...]
    unshared: int = 0

    @property
    def group_numbers(self) -> Ints | None:
        """The groups as numbers (N,), None without groups."""
        return group_numbers(self.groups)

    def probabilities(self, run: int) -> NDArray[np.float64]:
        """The out-of-fold probabilities (N, K) of a run, by its position."""
        return self.tables[run][list(self.labels)].to_numpy(dtype=np.float64)

    def parts(self, run: int, config: Config) -> tuple[NDArray[np.int64], list[str]]:
        """`cross_fitting_parts` over the folds of a run, by its position; `config` is its config."""
        folds = self.tables[run]["fold"].to_numpy(dtype=np.int64)
        return cross_fitting_parts(
            self.ids, folds, self.positives, self.labels, seed=config.folds.seed, groups=self.groups
        )


def join_out_of_fold(
    runs: Sequence[RunFolder], train: TrainTable, labels: Sequence[str], folds: Sequence[Sequence[int]] | None = None
) -> JoinedOutOfFold:
    """Join the out-of-fold probabilities of scored runs with the training table.

    Args:
        runs: at least one.
        train: the training table as it is now.
        labels: the labels of all runs, in any order.
        folds: of each run, the folds whose rows are joined; all scored ones if None.

    Raises:
        RunError: a run is not scored, runs validate other rows, or none in common, or the table does not fit the runs
            any more.
    """
    if set(labels) != set(train.labels):
        raise RunError(
            f"{runs[0].path} was trained on other labels than the training table holds now",
            expected=listing(labels, 12),
            got=listing(train.labels, 12),
            remedy="restore the training table of the runs",
        )
    tables = [read_predictions(run.oof, ["fold", *labels]) for run in runs]
    wholes = [_validated_once_finished(run, table) for run, table in zip(runs, tables, strict=True)]
    for run, whole in zip(runs[1:], wholes[1:], strict=True):
        apart = wholes[0] ^ whole
        if apart:
            raise RunError(
                f"{runs[0].path} and {run.path} do not validate the same rows",
                got=f"{len(apart)} ids in one of them only",
                remedy="use runs on the same training table",
            )
    if folds is not None:
        tables = [table[table["fold"].isin(kept)] for table, kept in zip(tables, folds, strict=True)]
    validated = set.intersection(*(set(table.index) for table in tables))
    if not validated:
        raise RunError(
            f"no row is validated by all of {listing([str(run.path) for run in runs])}",
            expected="runs with a finished fold in common",
            got="; ".join(f"folds {listing(sorted(set(table['fold'])))}" for table in tables),
            remedy="finish more folds with run_cv.py",
        )
    lost = validated - set(train.ids)
    if lost:
        raise RunError(
            f"{runs[0].path} has validated rows that the training table does not hold any more",
            got=f"{len(lost)} ids, such as {min(lost)}",
            remedy="restore the training table of the runs",
        )
    rows = [row for row, id_ in enumerate(train.ids) if id_ in validated]
    columns = [train.labels.index(name) for name in labels]
    ids = [train.ids[row] for row in rows]
    groups = read_folds(runs[0].folds)["group"].reindex(ids, fill_value="").tolist()
    return JoinedOutOfFold(
        ids=tuple(ids),
        labels=tuple(labels),
        positives=train.positives[rows][:, columns],
        targets=train.truths[rows][:, columns],
        groups=tuple(groups) if any(groups) else None,
        tables=tuple(table.loc[ids, ["fold", *labels]] for table in tables),
        unshared=len(set.union(*(set(table.index) for table in tables))) - len(validated),
    )


def _validated_once_finished(run: RunFolder, table: pd.DataFrame) -> set[str]:
    """The ids that `run` will have validated at its end: those in `table`, and those of its unfinished folds."""
    folds = read_folds(run.folds)["fold"]
    waiting = folds[(folds >= 0) & ~folds.isin(set(table["fold"]))]
    return {*table.index, *waiting.index}
