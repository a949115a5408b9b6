"""The command with --search: its output, its folder, and a second command."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pandas as pd
import pytest
import yaml

from pipeline.config import load_config
from pipeline.events import Event, Listener, StepFinished, TrialStep
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from pipeline.search.search import run_search
from pipeline.search.storage import opened_storage
from tests.conftest import PROJECT
from tests.e2e.commands import cv, printed

SPACE = "search.space={loss.gamma_neg: {low: 0, high: 6}, hidden_dim: {low: 8, high: 24, step: 8}}"
SEARCH_ONLY = ("--search", "search.then=stop")


def last_map(epochs: Path) -> float:
    return float(json.loads(epochs.read_text().splitlines()[-1])["map"])


def test_a_search_and_then_all_folds_with_the_best_values(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("--search", "search.trials=3", "search.pruner=none", SPACE)
    assert cv(monkeypatch, tiny_config, *settings) == 0
    shown = printed(capsys)
    assert "Search: 3 COMPLETE; scored by map on fold 0" in shown
    assert "own values" in shown
    assert "folds left out by the search" in shown
    run = RunFolder(Path("runs/tiny"))
    trials = pd.read_csv(run.search.trials)
    assert trials["kind"].tolist() == ["own values", "sampled", "sampled"]
    assert [trials[name].tolist()[0] for name in ("loss.gamma_neg", "model.hidden_dim")] == [2.0, 16]
    for name in ("history", "importances", "slices", "contour", "timeline"):
        enough = name in ("history", "timeline")  # three trials are too few for the others
        assert run.search.figure(name).exists() is enough
    assert run.search.begun_trials() == []

    best = yaml.safe_load(run.search.best.read_text())
    config = run.read_config()
    assert best == {"loss": {"gamma_neg": config.loss.gamma_neg}, "model": {"hidden_dim": config.model.hidden_dim}}
    assert "--search" in run.search.best.read_text().splitlines()[1]
    # a trial is the training of a fold: the winner's score is what the fold reaches in the run
    assert trials["score"].max() == last_map(run.fold(0).epochs)

    weights = run.fold(0).weights.stat().st_mtime_ns
    assert cv(monkeypatch, tiny_config, *settings) == 0
    assert run.fold(0).weights.stat().st_mtime_ns == weights
    assert len(pd.read_csv(run.search.trials)) == 3
    assert cv(monkeypatch, tiny_config, *settings, "train.lr=1e-3") == 2
    assert "train.lr: 0.003 in the search, 0.001 now" in capsys.readouterr().err
    assert cv(monkeypatch, tiny_config, "loss.gamma_pos=1.0") == 2
    assert "--search goes on with the best values of the run's search" in capsys.readouterr().err


@pytest.mark.parametrize(("proxy", "trials"), [("none", 1), ("head", 0), ("head", 1)])
def test_a_time_budget_ends_inside_a_training_and_the_search_continues(
    proxy: str, trials: int, make_plan: Callable[..., Plan], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = "search.space={loss.gamma_neg: {low: 0, high: 6}}"
    plan = replace(
        make_plan("search.trials=2", "search.then=stop", f"search.proxy={proxy}", space),
        deadline=time.monotonic() + 1e6,
    )
    run = RunFolder(workplace / "runs/tiny")

    def search(listen: Listener) -> None:
        run_search(plan, run, workers=1, fresh=False, command="", listen=listen)

    with monkeypatch.context() as patched:

        def late(event: Event) -> None:
            if isinstance(event, TrialStep if trials else StepFinished):
                patched.setattr(time, "monotonic", lambda: 1e12)

        search(late)
    assert not run.search.best.exists()
    assert run.search.proxy(0).weights.exists() is (proxy == "head" and trials == 1)
    search(lambda _: None)
    ended = pd.read_csv(run.search.trials)
    assert ended["state"].tolist() == ["FAIL"] * trials + ["COMPLETE"] * 2
    assert ended["failure"].dropna().tolist() == ["interrupted"] * trials


def test_a_used_time_budget_is_reported(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, "--search", SPACE, "train.time_budget=0s") == 0
    assert "train.time_budget=0s is used; the same command continues the search" in capsys.readouterr().out


def test_head_trials_with_a_cross_fitted_score(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space = "search.space={hidden_dim: {choices: [16, 18]}, loss.gamma_neg: {low: 0, high: 6}}"
    proxy = ("search.proxy=head", "search.judge=metric", "search.folds=[1,0]", "search.epochs=3")
    assert cv(monkeypatch, tiny_config, *SEARCH_ONLY, "search.trials=4", space, *proxy) == 2
    assert "search.space.model.hidden_dim=18" in capsys.readouterr().err
    assert not RunFolder(Path("runs/tiny")).path.exists()

    space = "search.space={heads: {low: 2, high: 3}, loss.gamma_neg: {low: 0, high: 6}}"
    # three heads do not divide the width: each bound is checked before the first trial
    assert cv(monkeypatch, tiny_config, *SEARCH_ONLY, "search.trials=4", space, *proxy) == 2

    space = "search.space={dropout: {low: 0, high: 0.5}, loss.gamma_neg: {low: 0, high: 6}}"
    assert cv(monkeypatch, tiny_config, *SEARCH_ONLY, "search.trials=4", space, *proxy) == 0
    shown = printed(capsys)
    assert "scored by f1_macro, cross-fitted on fold 1, 0" in shown
    run = RunFolder(Path("runs/tiny"))
    trials = pd.read_csv(run.search.trials)
    assert trials["state"].isin(["COMPLETE", "PRUNED"]).sum() == 4
    assert not run.config.exists()  # no run has been begun
    assert cv(monkeypatch, tiny_config) == 0  # and it can be begun now


def test_a_trial_that_diverges_fails_and_is_replaced(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    space = "search.space={lr: {choices: [3.0e-3, 1.0e+30]}}"
    assert cv(monkeypatch, tiny_config, *SEARCH_ONLY, "search.trials=2", "train.lr=1.0e+30", space) == 0
    assert "trial 0 failed: the loss became" in printed(capsys)
    trials = pd.read_csv(RunFolder(Path("runs/tiny")).search.trials)
    assert trials.loc[0, "state"] == "FAIL"
    assert trials["state"].isin(["COMPLETE", "PRUNED"]).sum() == 2


@pytest.mark.slow
def test_a_search_over_any_learning_rate_ends_and_goes_on(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = "search.space={train.lr: {low: 1e-6, high: 1e3, log: true}}"
    for trials in (6, 10):
        assert cv(monkeypatch, tiny_config, *SEARCH_ONLY, f"search.trials={trials}", space) == 0
        states = pd.read_csv(RunFolder(Path("runs/tiny")).search.trials)["state"]
        assert set(states) <= {"COMPLETE", "PRUNED", "FAIL"}
        assert (states != "FAIL").sum() == trials


def test_a_run_that_was_begun_without_a_search_is_not_changed(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, "train.epochs=1") == 0
    before = RunFolder(Path("runs/tiny")).config.read_bytes()
    assert cv(monkeypatch, tiny_config, "train.epochs=1", "--search") == 2
    assert "begun without a search" in capsys.readouterr().err
    assert RunFolder(Path("runs/tiny")).config.read_bytes() == before
    assert not RunFolder(Path("runs/tiny")).search.path.exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["search.folds=[7]"], "there is no fold 7"),
        (["--workers", "0"], "--workers: 0"),
        (["search.storage=nonsense"], "not a database URL"),
        (["search.storage=oracle://user:secret@localhost/x"], "not installed"),
    ],
)
def test_a_mistake_is_one_message_without_a_password(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], part: str
) -> None:
    assert cv(monkeypatch, tiny_config, "--search", *words) == 2
    message = capsys.readouterr().err
    assert part in message
    assert "secret" not in message
    assert "Traceback" not in message


@pytest.mark.usefixtures("quick_processes")
def test_two_workers_share_the_trials_of_a_search(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*SEARCH_ONLY, "--workers", "2", "search.trials=3", "train.epochs=1", "search.pruner=none")
    assert cv(monkeypatch, tiny_config, *words) == 0
    trials = pd.read_csv(RunFolder(Path("runs/tiny")).search.trials)
    assert trials["state"].tolist() in (["COMPLETE"] * 3, ["COMPLETE"] * 4)  # at most one more than asked for
    assert trials["kind"].tolist().count("own values") == 1
    assert trials["loss.gamma_neg"].is_unique


def test_optuna_dashboard_opens_the_study(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    assert cv(monkeypatch, tiny_config, *SEARCH_ONLY, "search.trials=1", "train.epochs=1") == 0
    study = RunFolder(Path("runs/tiny")).search.study
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(Path(sys.executable).with_name("optuna-dashboard")), f"sqlite:///{study}", "--port", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        page = _fetch(f"http://127.0.0.1:{port}/dashboard/studies/1", server)
        data = json.loads(_fetch(f"http://127.0.0.1:{port}/api/studies/1?after=0", server))
    finally:
        server.terminate()
        server.wait(30)
    assert "<html" in page
    assert (data["name"], [trial["state"] for trial in data["trials"]]) == ("tiny", ["Complete"])


def _fetch(url: str, server: subprocess.Popen[bytes]) -> str:
    """The text at `url`, as soon as the server answers."""
    for _ in range(300):
        assert server.poll() is None
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError:
            time.sleep(0.2)
    raise AssertionError(f"{url} does not answer")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_search_continues_and_completes_every_trial(tiny_config: Path, workers: int) -> None:
    """Heartbeats are faster here, in each process, so that a death is noticed within seconds."""
    Path("quick").mkdir()
    Path("quick/sitecustomize.py").write_text(
        "from pipeline.search import storage\n"
        "storage.opened_storage.__wrapped__.__kwdefaults__.update(heartbeat=1, grace=3)\n"
    )
    settings = [f"--workers={workers}", "search.trials=6", "train.epochs=6", "search.pruner=none"]
    command = [sys.executable, str(PROJECT / "run_cv.py"), str(tiny_config), *SEARCH_ONLY, *settings]
    environment = {"PYTHONPATH": f"{PROJECT}:quick", "OMP_WAIT_POLICY": "PASSIVE", "PATH": "/usr/bin:/bin"}
    run = RunFolder(Path("runs/tiny"))
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 240
    while not list(run.search.path.glob("trials/2/fold0/epochs.jsonl")):
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    trials = pd.read_csv(run.search.trials)
    states = trials["state"].value_counts().to_dict()
    assert 6 <= states["COMPLETE"] <= 6 + workers - 1
    assert 1 <= states["FAIL"] <= workers
    dead = trials[trials["state"] == "FAIL"]
    assert (dead["failure"] == "its process died").all()
    assert sorted(trials[trials["kind"] == "retry"]["loss.gamma_neg"]) == sorted(dead["loss.gamma_neg"])
    assert not any((run.search.path / "trials").iterdir())


def test_a_database_that_a_killed_command_has_half_made_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    with opened_storage(None, path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as database:
        for name in ("alembic_version", "version_info", "trial_values"):
            database.execute(f"DROP TABLE {name}")
        database.execute("DROP INDEX ix_studies_study_name")
    with opened_storage(None, path) as storage:
        assert storage.get_all_studies() == []
        for _ in range(2):
            optuna.create_study(storage=storage, study_name="tiny", load_if_exists=True)
        assert len(storage.get_all_studies()) == 1


def test_a_database_url_may_name_an_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDY_FILE", str(tmp_path / "elsewhere.db"))
    with opened_storage("sqlite:///$STUDY_FILE", tmp_path / "unused.db") as storage:
        assert storage.engine.url.database == str(tmp_path / "elsewhere.db")
    assert (tmp_path / "elsewhere.db").exists()
    assert not (tmp_path / "unused.db").exists()


def test_debug_runs_two_short_trials(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cv(monkeypatch, tiny_config, *SEARCH_ONLY, "--debug", "search.storage=postgresql://nowhere/x") == 0
    assert len(pd.read_csv(RunFolder(Path("runs/tiny-debug")).search.trials)) == 2
    assert load_config(tiny_config).search.trials == 30
