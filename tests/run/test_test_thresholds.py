"""How a finished run decides, read back from its files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.run.folder import RunFolder
from pipeline.run.submission.test_thresholds import read_decision_rule
from pipeline.run.trained_run import open_run
from pipeline.thresholds.row_rules import RowRules
from tests.conftest import LABELS
from tests.e2e.conftest import finished

__all__ = ["finished"]


@pytest.mark.parametrize("labels", [LABELS, LABELS[::-1]])
def test_the_out_of_fold_probabilities_are_the_labels_columns(
    labels: tuple[str, ...], finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    rule = read_decision_rule(open_run(run), RowRules(), labels)
    written = pd.read_parquet(run.oof)
    assert "fold" in written.columns
    np.testing.assert_array_equal(rule.out_of_fold, written[list(labels)].to_numpy())
