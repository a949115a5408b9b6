"""What a submission in a run folder was made with and promised, kept beside it: the run may go on afterwards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import RunError
from pipeline.files import read_json, write_json, write_parquet
from pipeline.metrics.metric_spec import metric_name
from pipeline.metrics.registry import metric_input
from pipeline.run.folder import RunFolder
from pipeline.run.trained_run import TrainedRun


def promised_by(run: RunFolder, thresholds: Mapping[str, Any]) -> dict[str, Any]:
    """The out-of-fold mAP and the notes of the scores that belong to a run's `thresholds`.

    The mAP is None where a kill kept these scores from the disk.
    """
    scores = read_json(run.scores) if run.scores.exists() else None
    if scores is None or scores["folds"] != thresholds["folds"]:
        return {"map": None, "notes": thresholds["notes"]}
    return {"map": scores["threshold_free"]["map"], "notes": scores["notes"]}


def write_decided(
    first: TrainedRun, ids: Sequence[str], *, decisions: NDArray[Any], calibrated: NDArray[np.float64]
) -> None:
    """What the first run's metric judges of each test row, both (N, K)."""
    takes_decisions = metric_input(first.config.competition.metric, first.labels) == "decisions"
    table = pd.DataFrame(decisions if takes_decisions else calibrated, columns=list(first.labels))
    table.insert(0, "id", list(ids))
    write_parquet(first.run.decided, table)


def write_record(runs: Sequence[TrainedRun], promised: Mapping[str, Any]) -> None:
    """Write `submission.json` of the first run.

    Args:
        runs: whose models predicted.
        promised: `cross_fitted`, `in_sample` and `map`, out-of-fold, and `notes` on them.
    """
    first = runs[0]
    record = {
        "runs": [str(run.run.path) for run in runs],
        "folds": [list(run.folds) for run in runs],
        "labels": list(first.labels),
        "metric": metric_name(first.config.competition.metric),
        **{key: _finite(promised[key]) for key in ("cross_fitted", "in_sample", "map")},
        "notes": list(promised["notes"]),
    }
    write_json(first.run.submitted, record)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def read_record(run: RunFolder) -> dict[str, Any]:
    """The record of the run's submission. Raises RunError where it is missing."""
    if not run.submitted.exists():
        raise RunError(
            f"{run.path} holds no submission, or half of one, or one that is older than {run.submitted.name}",
            remedy=f"write it with python make_submission.py {run.path}",
        )
    record: dict[str, Any] = read_json(run.submitted)
    return record
