"""Several seed models per fold, and a full fit: added to a run, averaged, the same bytes after a kill."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest

from pipeline.competition.folds.rows import FULL_FIT
from pipeline.events import Event, Fold, FoldFinished, StepFinished
from pipeline.prediction.ensemble import sigmoid
from pipeline.run.cv import run_cv
from pipeline.run.folder import RunFolder
from pipeline.run.records import Scores
from pipeline.run.submission.submit import submit
from pipeline.run.trained_run import open_run
from tests.conftest import LABELS
from tests.e2e.commands import Killed, cv, ignore, make_plan, printed, submission


def probabilities(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path).set_index("id")[list(LABELS)]


def test_the_models_of_several_seeds_predict_the_mean_of_runs_with_these_seeds(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (3, 4):
        assert cv(monkeypatch, tiny_config, f"train.seed={seed}", "--run", f"seed{seed}") == 0
    first, second, run = (RunFolder(Path("runs") / name) for name in ("seed3", "seed4", "tiny"))
    assert cv(monkeypatch, tiny_config, "train.seed=3", "train.seeds=2") == 0
    assert "fold 1 seed 4  epoch   2" in capsys.readouterr().out
    for fold in (0, 1):
        alone = [sigmoid(probabilities(one.fold(fold).oof).to_numpy()) for one in (first, second)]
        np.testing.assert_allclose(sigmoid(probabilities(run.fold(fold).oof).to_numpy()), np.mean(alone, 0))
    assert cv(monkeypatch, tiny_config, "train.seed=3", "train.seeds=2", "predict.average=logit") == 0
    for fold in (0, 1):
        logits = [probabilities(one.fold(fold).oof) for one in (first, second)]
        np.testing.assert_allclose(probabilities(run.fold(fold).oof), (logits[0] + logits[1]) / 2)
        assert (run.fold(fold).path / "seed4/epochs.jsonl").exists()
        assert not (run.fold(fold).path / "seed4/resume").exists()
        assert not run.fold(fold).resume.exists()
    assert submission(monkeypatch, run.path) == 0
    assert "4 predictions averaged per image" in printed(capsys)


def test_seeds_are_added_to_a_finished_run_and_taken_away_without_training(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(Path("runs/tiny"))
    assert cv(monkeypatch, tiny_config) == 0
    alone, weights = run.oof.read_bytes(), run.fold(0).weights.stat().st_mtime_ns
    assert cv(monkeypatch, tiny_config, "train.seeds=2") == 0
    both, added = run.oof.read_bytes(), (run.fold(0).path / "seed1/weights.safetensors").stat().st_mtime_ns
    assert both != alone
    assert cv(monkeypatch, tiny_config) == 0
    assert run.oof.read_bytes() == alone
    assert cv(monkeypatch, tiny_config, "train.seeds=2") == 0
    assert run.oof.read_bytes() == both
    assert run.fold(0).weights.stat().st_mtime_ns == weights
    assert (run.fold(0).path / "seed1/weights.safetensors").stat().st_mtime_ns == added


def test_folds_that_lack_added_seeds_are_named(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, "train.full_fit=true") == 0
    assert "not finished" not in capsys.readouterr().out
    assert cv(monkeypatch, tiny_config, "train.full_fit=true", "train.seeds=2", "--folds", "0") == 0
    shown = printed(capsys)
    assert "fold 0 of 0-1" in shown
    assert "left out of these scores: fold 1, finished with other train.seeds or predict settings" in shown
    assert "the full fit is not finished" in shown
    assert submission(monkeypatch, "runs/tiny") == 0
    shown = printed(capsys)
    assert "the full fit is not finished and left out" in shown
    assert "finished since it was scored" not in shown


@pytest.mark.slow
@pytest.mark.usefixtures("quick_processes")
def test_folds_of_several_models_side_by_side_give_the_same_bytes(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, beside = (RunFolder(Path("runs") / name) for name in ("tiny", "beside"))
    assert cv(monkeypatch, tiny_config, "train.seeds=2") == 0
    one_thread = [f"train.parallel_folds={max(2, joblib.cpu_count())}", "train.workers=1"]
    assert cv(monkeypatch, tiny_config, "train.seeds=2", *one_thread, "--run", "beside") == 0
    assert beside.oof.read_bytes() == alone.oof.read_bytes()


def test_a_kill_in_any_model_changes_no_byte(tiny_config: Path) -> None:
    settings = ["train.seeds=2", "train.full_fit=true", "model.dropout=0.3"]
    plan = make_plan(tiny_config, *settings)
    whole, killed = RunFolder(Path("runs/whole")), RunFolder(Path("runs/killed"))
    run_cv(plan, whole, folds=None, fresh=False, listen=ignore)
    points: list[tuple[Fold, int, int]] = [(0, 1, 4), (1, 0, 4), (FULL_FIT, 1, 7)]  # in the second epoch
    began: list[tuple[Fold, int | None, int]] = []
    for point in [*points, None]:
        steps: list[tuple[Fold, int | None, int]] = []

        def kill(event: Event, point: object = point, steps: list[tuple[Fold, int | None, int]] = steps) -> None:
            if isinstance(event, StepFinished):
                steps.append((event.fold, event.seed, event.step))
                if steps[-1] == point and len(steps) > 1:  # the first step is that of the last kill
                    raise Killed

        with pytest.raises(Killed) if point else contextlib.nullcontext():
            run_cv(plan, killed, folds=None, fresh=False, listen=kill)
        began.append(steps[0])
    assert began[1:] == points
    assert killed.oof.read_bytes() == whole.oof.read_bytes()
    for number in (0, 1, FULL_FIT):
        for ours, theirs in zip(
            *(run.fold(number).seed_models(plan.config.train) for run in (killed, whole)), strict=True
        ):
            assert ours.weights.read_bytes() == theirs.weights.read_bytes()
            assert not ours.resume.exists()


def test_the_full_fit_trains_on_all_rows_and_joins_the_mean_over_models(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = pd.read_csv("data/train.csv", dtype=str)["id"]
    pd.DataFrame({"id": ids, "fold": [-1] * 4 + [0] * 10 + [1] * 10}).to_csv("data/folds.csv", index=False)
    run, settings = RunFolder(Path("runs/tiny")), ["folds.file=folds.csv", "train.select=best"]
    plan = make_plan(tiny_config, *settings, "train.full_fit=true")
    seen: list[StepFinished] = []
    scores = run_cv(
        plan, run, folds=None, fresh=False, listen=lambda e: seen.append(e) if isinstance(e, StepFinished) else None
    )
    assert {(event.fold, event.steps) for event in seen} == {(0, 2 * 3), (1, 2 * 3), (FULL_FIT, 2 * 6)}
    assert "map" not in json.loads(run.fold(FULL_FIT).epochs.read_text().splitlines()[0])
    assert not run.fold(FULL_FIT).oof.exists()

    assert submission(monkeypatch, run.path) == 0
    shown = printed(capsys)
    assert "3 predictions averaged per image" in shown
    assert "1 model is trained on all rows; scores and thresholds are of the folds' models alone" in shown
    together = probabilities(run.test)
    alone = replace(open_run(run), models=(run.fold(FULL_FIT),))
    submit([alone], views=None, out=Path("full.csv"), images=None, sample=None)
    assert cv(monkeypatch, tiny_config, *settings) == 0
    assert Scores.load(run.scores) == scores
    assert submission(monkeypatch, run.path) == 0
    of_folds = probabilities(run.test)
    np.testing.assert_allclose(together, (2 * of_folds + probabilities(Path("full.parquet"))) / 3, rtol=1e-6)
    assert not np.allclose(together, of_folds)


def test_a_budget_that_ends_before_the_full_fit(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(tiny_config, "train.full_fit=true")
    run, clock = RunFolder(Path("runs/tiny")), [0.0]

    def over_after_the_folds(event: Event) -> None:
        clock[0] = 9.0 if isinstance(event, FoldFinished) and event.fold == 1 else clock[0]

    with monkeypatch.context() as patched:
        patched.setattr("time.monotonic", lambda: clock[0])
        scores = run_cv(replace(plan, deadline=5.0), run, folds=None, fresh=False, listen=over_after_the_folds)
    assert scores is not None
    assert scores.folds == (0, 1)
    assert submission(monkeypatch, run.path) == 0
    assert "the full fit is not finished and left out" in printed(capsys)
    assert cv(monkeypatch, tiny_config, "train.full_fit=true", "--folds", "0,1") == 0
    assert "full fit is not finished" in capsys.readouterr().out
    assert cv(monkeypatch, tiny_config, "train.full_fit=true") == 0
    assert "full fit  finished" in capsys.readouterr().out
    assert submission(monkeypatch, run.path) == 0
    assert "3 predictions averaged per image" in printed(capsys)
