"""From CSV to submission on a small competition, and a second command on the same run."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from pipeline.metrics.registry import get_metric
from pipeline.model.weights import load_tensors, save_tensors
from pipeline.report.truth import true_score
from pipeline.run.folder import RunFolder
from pipeline.run.records import FurtherScore, Scores
from tests.conftest import LABELS, PROJECT
from tests.e2e.commands import cv, listing, printed, submission


def _train_targets(workplace: Path) -> pd.DataFrame:
    return pd.read_csv(workplace / "data/train.csv", dtype={"id": str}).set_index("id")[list(LABELS)]


def test_from_training_to_submission(
    tiny_config: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, "predict.tta=[identity,hflip]") == 0
    shown = capsys.readouterr().out
    assert "cross-fitted" in shown
    assert "in-sample" in shown
    run = RunFolder(workplace / "runs/tiny")
    oof = pd.read_parquet(run.oof).set_index("id")
    folds = pd.read_csv(run.folds, dtype={"id": str}).set_index("id")
    targets = _train_targets(workplace)
    assert sorted(oof.index) == sorted(targets.index)
    assert (oof["fold"] == folds.loc[oof.index, "fold"]).all()
    assert oof[list(LABELS)].to_numpy().min() >= 0
    assert oof[list(LABELS)].to_numpy().max() <= 1
    scores, thresholds = json.loads(run.scores.read_text()), json.loads(run.thresholds.read_text())
    decisions = oof[list(LABELS)] >= pd.Series(thresholds["values"])[list(LABELS)]
    metric = get_metric("f1_macro").function
    recomputed = metric(
        targets.loc[oof.index].to_numpy(np.uint8), decisions[list(LABELS)].to_numpy().astype(np.uint8)
    ).value
    assert scores["in_sample"]["pooled"] == pytest.approx(recomputed)
    assert len(scores["cross_fitted"]["folds"]) == 2
    assert not run.fold(0).resume.exists()
    assert len(run.fold(1).epochs.read_text().splitlines()) == 2

    assert submission(monkeypatch, run.path) == 0
    sample = pd.read_csv(workplace / "data/sample_submission.csv", dtype=str)
    written = pd.read_csv(run.submission, dtype=str)
    assert list(written.columns) == list(sample.columns)
    assert written["id"].tolist() == sample["id"].tolist()
    assert set(written[list(LABELS)].to_numpy().ravel()) <= {"0", "1"}
    probabilities = pd.read_parquet(run.test).set_index("id").loc[written["id"], list(LABELS)]
    again = probabilities.to_numpy() >= np.array([thresholds["values"][name] for name in LABELS])
    np.testing.assert_array_equal(written[list(LABELS)].to_numpy() == "1", again)

    truth = workplace / "truth.csv"
    written.to_csv(truth, index=False)
    assert true_score(run, truth)["f1_macro"] in (pytest.approx(1.0), pytest.approx(np.nan, nan_ok=True))


def test_a_finished_run_is_not_trained_again_and_after_keys_apply(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config) == 0
    run = RunFolder(Path("runs/tiny"))
    weights = [run.fold(fold).weights.stat().st_mtime_ns for fold in (0, 1)]
    logits = run.fold(0).oof.read_bytes()
    capsys.readouterr()
    assert cv(monkeypatch, tiny_config, "thresholds.policy=fixed", "submission.empty=argmax") == 0
    assert "was finished before" in capsys.readouterr().out
    assert set(json.loads(run.thresholds.read_text())["values"].values()) == {0.5}
    assert run.fold(0).oof.read_bytes() == logits
    assert cv(monkeypatch, tiny_config, "predict.tta=[identity,vflip]") == 0
    assert run.fold(0).oof.read_bytes() != logits
    assert [run.fold(fold).weights.stat().st_mtime_ns for fold in (0, 1)] == weights


@pytest.mark.usefixtures("quick_processes")
def test_folds_alone_and_side_by_side_give_the_same_bytes(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cv(monkeypatch, tiny_config, "--folds", "1") == 0
    run = RunFolder(Path("runs/tiny"))
    assert cv(monkeypatch, tiny_config) == 0
    one_thread = [f"train.parallel_folds={max(2, joblib.cpu_count())}", "train.workers=1", "--run", "together"]
    assert cv(monkeypatch, tiny_config, *one_thread) == 0
    together = RunFolder(Path("runs/together"))
    assert together.oof.read_bytes() == run.oof.read_bytes()


def test_neither_row_order_nor_worker_count_changes_a_byte(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cv(monkeypatch, tiny_config, "images.cache=none") == 0
    assert cv(monkeypatch, tiny_config, "images.cache=none", "train.workers=2", "--run", "workers") == 0
    assert cv(monkeypatch, tiny_config, "--run", "cached") == 0
    table = pd.read_csv("data/train.csv", dtype=str)
    table.sample(frac=1, random_state=3).to_csv("data/train.csv", index=False)
    assert cv(monkeypatch, tiny_config, "--run", "shuffled") == 0
    plain, workers, cached, shuffled = (
        RunFolder(Path("runs") / name) for name in ("tiny", "workers", "cached", "shuffled")
    )
    assert workers.oof.read_bytes() == plain.oof.read_bytes() == cached.oof.read_bytes()
    for fold in (0, 1):
        ours, theirs = (pd.read_parquet(run.fold(fold).oof).set_index("id") for run in (plain, shuffled))
        pd.testing.assert_frame_equal(ours, theirs.loc[ours.index])
    ours, theirs = (pd.read_parquet(run.oof).set_index("id") for run in (plain, shuffled))
    pd.testing.assert_frame_equal(ours, theirs.loc[ours.index])
    assert list(ours.index) != list(theirs.index)


@pytest.mark.usefixtures("quick_processes")
def test_parallel_folds_killed_in_fold_1_end_with_the_same_bytes(
    tiny_config: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parallel = max(2, joblib.cpu_count())  # each with one thread, like this process
    settings = ("train.epochs=5", "model.dropout=0.3", "train.select=best")
    assert cv(monkeypatch, tiny_config, *settings, "--run", "whole") == 0
    whole, killed = (RunFolder(workplace / "runs" / name) for name in ("whole", "killed"))
    again = (*settings, f"train.parallel_folds={parallel}", "--run", "killed")
    words = [sys.executable, str(PROJECT / "run_cv.py"), str(tiny_config), *again]
    process = subprocess.Popen(words, cwd=workplace, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not killed.fold(1).epochs.exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)  # until its child processes notice and end
    assert not killed.fold(1).done.exists()
    assert cv(monkeypatch, tiny_config, *again) == 0
    assert killed.oof.read_bytes() == whole.oof.read_bytes()
    for fold in (0, 1):
        assert killed.fold(fold).oof.read_bytes() == whole.fold(fold).oof.read_bytes()
        assert len(killed.fold(fold).epochs.read_text().splitlines()) == 5
    assert {name for name in listing(killed.path) if ".writing-" in name} == set()


def test_a_chosen_epoch_is_marked_beside_every_score(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, "train.select=best") == 0
    assert capsys.readouterr().out.count("epoch chosen on these rows") >= 3
    run = RunFolder(Path("runs/tiny"))
    for path in (run.scores, run.thresholds):
        assert "epoch chosen on these rows" in json.loads(path.read_text())["notes"]
    assert submission(monkeypatch, run.path) == 0
    assert "epoch chosen on these rows" in printed(capsys)


def test_an_external_fold_file_with_one_validation_fold(
    tiny_config: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = _train_targets(workplace).index
    fold = [0 if number < 12 else -1 for number in range(len(ids))]
    pd.DataFrame({"id": ids, "fold": fold}).to_csv(workplace / "data/official.csv", index=False)
    assert cv(monkeypatch, tiny_config, "folds.file=official.csv") == 0
    assert "cross-fitted over 5 parts of its rows" in capsys.readouterr().out
    assert len(pd.read_parquet(workplace / "runs/tiny/oof.parquet")) == 12
    assert submission(monkeypatch, "runs/tiny", "runs/tiny", "--out", "both.csv") == 0
    assert "cross-fitted over 5 parts of its rows" in printed(capsys)


def test_several_runs_are_averaged_and_fit_their_own_thresholds(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config) == 0
    assert cv(monkeypatch, tiny_config, "model.head=gap", "images.size=[32,48]", "--run", "gap") == 0
    assert submission(monkeypatch, "runs/tiny") == 0
    assert submission(monkeypatch, "runs/gap") == 0
    alone = [pd.read_parquet(f"runs/{name}/test.parquet").set_index("id") for name in ("tiny", "gap")]
    capsys.readouterr()
    assert submission(monkeypatch, "runs/tiny", "runs/gap", "--out", "both.csv") == 0
    assert "4 predictions averaged per image" in capsys.readouterr().out
    both = pd.read_parquet("both.parquet").set_index("id")
    pd.testing.assert_frame_equal(pd.read_parquet("runs/tiny/test.parquet").set_index("id"), alone[0])
    np.testing.assert_allclose(both, (alone[0] + alone[1].loc[alone[0].index]) / 2, rtol=1e-6)
    assert Path("both.csv").exists()


def test_debug_runs_everything_in_its_own_folder(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cv(monkeypatch, tiny_config, "--debug") == 0
    assert [path.name for path in Path("runs").iterdir() if path.name[0] != "."] == ["tiny-debug"]
    assert len(pd.read_parquet("runs/tiny-debug/oof.parquet")) == 16


def test_a_run_folder_reads_only_its_own_weights(
    finished: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(workplace / "runs/tiny")
    shutil.copytree(finished, run.path)
    outside = workplace / "outside.safetensors"
    outside.write_bytes(b"not weights: reading this fails")
    text = run.config.read_text().replace("weights: null", f"weights: {outside}")
    run.config.write_text(text.replace("pretrained: false", "pretrained: true"))
    tensors, facts = load_tensors(run.fold(0).weights)
    facts["model"] |= {"weights": str(outside), "backbone_weights": str(outside), "pretrained": True}
    save_tensors(run.fold(0).weights, tensors, facts)
    assert submission(monkeypatch, run.path) == 0


def test_a_run_killed_before_its_new_thresholds_is_not_submitted(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config) == 0

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.run.cv.score_run", killed)
        assert cv(patch, tiny_config, "predict.tta=[identity,vflip]") == 130
    assert submission(monkeypatch, "runs/tiny") == 2
    assert "thresholds were not fitted with the settings in its config.yaml" in capsys.readouterr().err
    assert cv(monkeypatch, tiny_config, "predict.tta=[identity,vflip]") == 0
    assert submission(monkeypatch, "runs/tiny") == 0


def test_further_metrics_and_scores_at_half_are_printed_and_stored(
    tiny_config: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, "competition.also=[f1_micro,map]") == 0
    shown = printed(capsys)
    scores = Scores.load(RunFolder(workplace / "runs/tiny").scores)
    assert list(scores.further) == ["f1_macro", "f1_micro", "map"]
    assert scores.further["f1_macro"].cross_fitted == scores.cross_fitted.pooled
    assert scores.further["map"] == FurtherScore(scores.threshold_free.map, None)
    table = pd.read_parquet(workplace / "runs/tiny/oof.parquet").set_index("id")
    truth = pd.read_csv(workplace / "data/train.csv", dtype={"id": str}).set_index("id").loc[table.index, list(LABELS)]
    decided = table[list(LABELS)].to_numpy() >= 0.5
    assert scores.further["f1_micro"].at_half == pytest.approx(f1_score(truth, decided, average="micro"))
    assert f"(at 0.5: {scores.further['f1_micro'].at_half:.4f})" in shown


def test_parts_of_a_single_validation_fold_are_not_called_folds(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, "--folds", "0", "thresholds.policy=global") == 0
    shown = printed(capsys)
    assert "mean of parts" in shown
    assert "mean of folds" not in shown


def test_a_log_file_gets_a_line_on_the_steps_of_a_long_epoch(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.report.live._LINE_SECONDS", 0.0)
    assert cv(monkeypatch, tiny_config) == 0
    assert "fold 0 step 1 of " in printed(capsys)
