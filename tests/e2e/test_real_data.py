"""Two real data sets with their shipped configs, if they are on this machine: folds and submissions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from tests.conftest import PROJECT
from tests.e2e.commands import cv, make_plan, submission

DATA = Path(os.environ.get("Q2L_DATA", PROJECT / "data"))
SMALL = ("images.size=32", "model.feature_stride=8", "model.hidden_dim=16", "model.ffn_dim=16", "train.epochs=1")


def _root(name: str) -> str:
    root = DATA / name
    if not root.exists():
        pytest.skip(f"the data set {name} is not on this machine")
    return f"competition.root={root}"


def _plan(name: str) -> Plan:
    return make_plan(PROJECT / f"configs/competitions/{name}.yaml", _root(name), *SMALL)


def test_aquarium_clips_stay_in_one_fold() -> None:
    plan = _plan("aquarium")
    assert (len(plan.table.ids), len(plan.table.labels)) == (511, 7)
    groups = plan.table.groups
    assert groups is not None
    folds_of_group = pd.Series(plan.folds).groupby(pd.Series(groups)).nunique()
    assert len(folds_of_group) == 454
    assert folds_of_group.max() == 1


def test_ucmerced_labels_are_spread_evenly_over_the_folds() -> None:
    plan = _plan("ucmerced")
    assert (len(plan.table.ids), len(plan.table.labels)) == (1680, 17)
    shares = np.stack([plan.table.targets[plan.folds == fold].sum(axis=0) for fold in plan.fold_numbers])
    assert np.abs(shares - shares.mean(axis=0)).max() <= 2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "column"), [("aquarium", "labels"), ("ucmerced", "airplane")])
def test_a_submission_of_a_real_set(name: str, column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _root(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    assert cv(monkeypatch, PROJECT / f"configs/competitions/{name}.yaml", root, *SMALL) == 0
    run = RunFolder(tmp_path / "runs" / name)
    assert submission(monkeypatch, run.path) == 0
    sample = pd.read_csv(DATA / name / "sample_submission.csv", dtype=str)
    written = pd.read_csv(run.submission, dtype=str)
    assert list(written.columns) == list(sample.columns)
    assert written[sample.columns[0]].tolist() == sample[sample.columns[0]].tolist()
    assert written[column].notna().all()
