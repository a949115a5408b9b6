"""The true score is that of the submission, even if the run continued after it was written."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pipeline.console import make_console
from pipeline.errors import RunError
from pipeline.metrics.registry import get_metric
from pipeline.report.truth import print_truth, true_score
from pipeline.run.folder import RunFolder
from tests.conftest import LABELS
from tests.e2e.commands import cv, submission

TRUTH = Path("truth.csv")


@pytest.fixture
def truth(workplace: Path) -> pd.DataFrame:
    """Answers by id, also in `truth.csv`."""
    table = pd.read_csv("data/sample_submission.csv", dtype={"id": str})
    table[list(LABELS)] = [[(row + place) % 2 for place in range(3)] for row in range(len(table))]
    table.to_csv(TRUTH, index=False)
    return table.set_index("id")


def scored(file: Path, truth: pd.DataFrame) -> float:
    written = pd.read_csv(file, dtype={"id": str}).set_index("id").loc[truth.index]
    return get_metric("f1_macro").function(truth[list(LABELS)].to_numpy(), written[list(LABELS)].to_numpy()).value


def printed(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    print_truth(make_console(), run, TRUTH)
    return " ".join(capsys.readouterr().out.split())


def test_a_run_that_continued_after_its_submission(
    tiny_config: Path, truth: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(Path("runs/tiny"))
    assert cv(monkeypatch, tiny_config, "--folds", "0") == 0
    with pytest.raises(RunError, match="holds no submission"):
        true_score(run, TRUTH)
    assert submission(monkeypatch, run.path) == 0
    before, line = true_score(run, TRUTH), printed(run, capsys)
    assert before["f1_macro"] == pytest.approx(scored(run.submission, truth))
    assert "fold 0 of 0-1" in line
    assert "scored since" not in line

    assert cv(monkeypatch, tiny_config, "thresholds.policy=per_label") == 0
    assert true_score(run, TRUTH) == before
    after = printed(run, capsys)
    assert after.startswith(line)
    assert "the run is scored on other folds: this is the submission of folds 0" in after

    assert submission(monkeypatch, run.path) == 0
    assert "scored since" not in printed(run, capsys)
    assert true_score(run, TRUTH)["f1_macro"] == pytest.approx(scored(run.submission, truth))


def test_a_submission_of_several_runs_in_the_folder_of_the_first(
    tiny_config: Path, truth: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(Path("runs/tiny"))
    assert cv(monkeypatch, tiny_config, "thresholds.policy=per_label") == 0
    assert cv(monkeypatch, tiny_config, "train.seed=1", "--run", "other") == 0
    assert submission(monkeypatch, run.path) == 0
    alone = printed(run, capsys)
    assert submission(monkeypatch, run.path, "runs/other", "--out", run.submission) == 0  # the default path
    expected = " ".join(capsys.readouterr().out.split()).partition("cross-validated f1_macro: ")[2].split()[0]
    assert true_score(run, TRUTH)["f1_macro"] == pytest.approx(scored(run.submission, truth))
    assert f"cross-validation said {expected} cross-fitted" in printed(run, capsys)
    assert printed(run, capsys) != alone


def test_half_a_submission_is_refused(tiny_config: Path, truth: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(Path("runs/tiny"))
    assert cv(monkeypatch, tiny_config) == 0
    assert submission(monkeypatch, run.path) == 0

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.run.submission.submit.write_submission", killed)
        assert submission(patched, run.path) == 130
    with pytest.raises(RunError, match="half of one"):
        true_score(run, TRUTH)


def test_a_submission_for_another_metric_is_not_scored(
    tiny_config: Path, truth: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(Path("runs/tiny"))
    assert cv(monkeypatch, tiny_config) == 0
    assert submission(monkeypatch, run.path) == 0
    run.config.write_text(run.config.read_text().replace("metric: f1_macro", "metric: map"))
    with pytest.raises(RunError, match="written for f1_macro, and the run's metric is map now"):
        true_score(run, TRUTH)
