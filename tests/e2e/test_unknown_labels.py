"""Unknown label cells in folds, training, scores, resumed runs, figures and the submission."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.competition.table import read_train
from pipeline.config import load_config
from pipeline.events import ignore
from pipeline.files import read_json
from pipeline.report.figures import sheet_of_run
from pipeline.report.truth import true_score
from pipeline.run.folder import RunFolder
from pipeline.run.opening import data_digest
from tests.conftest import TINY
from tests.e2e.commands import cv, make_plan, printed, submission

LABELS = """
competition:
  root: data
  test: test.csv
  labels: {soft: true, uncertain: ignore, missing: {default: zeros, red: ignore}}
"""


def test_a_run_with_unknown_cells(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workplace / "data/train.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[::5, "red"] = ""
    table.loc[1::7, "green"] = "-1"
    table.loc[2::7, "blue"] = "0.7"
    table.to_csv(path, index=False)
    (workplace / "tiny.yaml").write_text(TINY.replace("\ncompetition: {root: data, test: test.csv}", LABELS))
    assert cv(monkeypatch, "tiny.yaml") == 0
    shown = printed(capsys)
    assert "missing label cells: 0 count as positive, 0 as negative, 5 as unknown" in shown
    assert "uncertain label cells: 0 count as positive, 0 as negative, 4 as unknown" in shown
    run = RunFolder(workplace / "runs/tiny")
    config = load_config(workplace / "tiny.yaml")
    train = read_train(config.competition, ignore)
    scores = read_json(run.scores)
    assert scores["labels"]["red"]["positives"] == int(np.nansum(train.truths[:, 0]))
    assert math.isfinite(scores["threshold_free"]["prevalence_map"])
    assert cv(monkeypatch, "tiny.yaml") == 0  # the digest of the targets is the same
    assert submission(monkeypatch, "runs/tiny") == 0
    sheet_of_run(run, count=4)
    truth = workplace / "truth.csv"
    ids = pd.read_csv(workplace / "data/test.csv", dtype=str)["id"]
    pd.DataFrame({"id": ids, "red": ["", *"10101"], "green": "1", "blue": "0"}).to_csv(truth, index=False)
    assert math.isfinite(true_score(run, truth)["map"])


def test_the_digest_sees_unknown_cells(tiny_config: Path) -> None:
    found = []
    for cell, policy in (("", "ignore"), ("", "zeros"), ("0", "ignore"), ("", "ignore")):
        path = Path("data/train.csv")
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table.loc[0, "red"] = cell
        table.to_csv(path, index=False)
        plan = make_plan(tiny_config, f"competition.labels.missing={policy}")
        found.append(data_digest(plan).targets_sha256)
    assert found[0] == found[3] != found[1] == found[2]
