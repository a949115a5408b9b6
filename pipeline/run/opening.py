"""Open the folder of a run: refuse other data, and write what the run is about."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator

import pandas as pd

from pipeline.errors import RunError
from pipeline.files import read_folds, write_csv, write_json
from pipeline.run.environment import describe_environment
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from pipeline.run.records import DataDigest


@contextlib.contextmanager
def opened(plan: Plan, run: RunFolder, *, fresh: bool) -> Iterator[None]:
    """Write the config, folds and data digest; with `fresh`, delete an earlier run first. The run is in use meanwhile.

    Raises:
        RunError: the folder belongs to other settings or other data, or is not a run folder.
    """
    run.begin(fresh=fresh)
    with run.in_use():  # from here on no other command deletes the run, so what is checked now stays true
        run.check_settings(plan.config)
        _check_same_data(plan, run)
        run.write_config(plan.config)
        if not run.environment.exists():
            write_json(run.environment, describe_environment(seed=plan.config.train.seed))
        write_csv(run.folds, _fold_frame(plan))
        data_digest(plan).save(run.data)
        yield


def data_digest(plan: Plan) -> DataDigest:
    """The labels in order, and a digest of every row's id and targets that does not depend on the rows' order."""
    rows = sorted(zip(plan.table.ids, (row.tobytes().hex() for row in plan.table.targets), strict=True))
    return DataDigest(plan.table.labels, hashlib.sha256(json.dumps(rows).encode()).hexdigest())


def _check_same_data(plan: Plan, run: RunFolder) -> None:
    """Refuse a run that was begun with other rows, labels or folds: its trained folds would not fit the new ones."""
    if not (run.folds.exists() and run.data.exists()):
        return
    if DataDigest.load(run.data) != data_digest(plan):
        raise RunError(
            f"{run.path} was begun with other rows, labels or targets than the training data give now",
            remedy="restore the data it began with, give another --run NAME, or start over with --fresh",
        )
    if read_folds(run.folds)["fold"].to_dict() != dict(zip(plan.table.ids, plan.folds.tolist(), strict=True)):
        raise RunError(
            f"{run.folds} holds other folds than the training data give now",
            remedy="restore the data this run began with, give another --run NAME, or start over with --fresh",
        )


def _fold_frame(plan: Plan) -> pd.DataFrame:
    groups = plan.table.groups if plan.table.groups is not None else [""] * len(plan.table.ids)
    return pd.DataFrame({"id": plan.table.ids, "group": groups, "fold": plan.folds})
