"""Several processes train one fold together: one run, one output, one exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pipeline.competition.folds.rows import FULL_FIT
from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.model.weights import load_tensors
from pipeline.run.folder import RunFolder
from tests.conftest import LABELS, PROJECT
from tests.e2e.commands import cv, make_plan, submission, verb
from tests.together import Ended, cv_together, end, environments, start


def assert_ended(ended: list[Ended], code: int) -> str:
    """Check that both ended with `code` and only the first printed; returns its output with single spaces."""
    first, second = ended
    assert [first.code, second.code] == [code, code], first.err + second.err
    assert second.out == second.err == ""
    return " ".join((first.out + first.err).split())


def is_complete(run: RunFolder, ids: list[str]) -> bool:
    oof = pd.read_parquet(run.oof)
    return sorted(oof["id"]) == ids and bool(oof[list(LABELS)].notna().all(axis=None))


IDS = [f"t.{number:03d}" for number in range(24)]


def test_two_processes_make_one_complete_run(tiny_config: Path, workplace: Path) -> None:
    settings = ("train.batch_size=5", "train.select=best", "train.parallel_folds=2", "predict.tta=[identity,hflip]")
    more = ("train.seeds=2", "train.full_fit=true", "train.time_budget=1h")
    shown = assert_ended(cv_together(tiny_config, *settings, *more, folder=workplace), 0)
    assert "train.parallel_folds=2: 2 processes train each fold, in order" in shown
    assert shown.count("fold 1 finished") == shown.count("full fit finished") == 1
    run = RunFolder(workplace / "runs/tiny")
    assert is_complete(run, IDS)
    assert json.loads(run.scores.read_text())["metric"] == "f1_macro"
    assert all(run.fold(fold).is_trained(load_config(tiny_config, more).train) for fold in (0, 1, FULL_FIT))
    assert not run.fold(0).resume.exists()
    assert not [*run.path.rglob(".writing-*")]


def test_an_image_that_breaks_in_one_process_ends_both_with_one_message(tiny_config: Path, workplace: Path) -> None:
    image = workplace / "data/train/t.007.png"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2] + whole[-12:])  # the header is complete, so only training notices it
    shown = assert_ended(cv_together(tiny_config, "images.cache=none", folder=workplace), 2)
    assert shown.count("error: ") == 1
    assert "t.007.png" in shown


def test_searches_submissions_and_verbs_work_in_one_process_only(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: dict[str, Callable[[], int]] = {
        "--search": lambda: cv(monkeypatch, tiny_config, "--search"),
        "make_submission.py": lambda: submission(monkeypatch, "runs/tiny"),
        "python -m pipeline check": lambda: verb("check", tiny_config),
    }
    for what, command in commands.items():
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert command() == 2
        assert f"error: {what} works in one process, but 2 were started" in capsys.readouterr().err


def test_a_batch_needs_an_image_for_each_process(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "7")
    with pytest.raises(ConfigError, match="a batch of 4 images has not two for each of 7 processes"):
        make_plan(tiny_config)
    with pytest.raises(ConfigError, match="a batch of 12 images"):  # a fold trains on 12 images
        make_plan(tiny_config, "train.batch_size=100")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_one_process_saves_the_state_and_interrupts_both(number: int, tiny_config: Path) -> None:
    started = [
        start(PROJECT / "run_cv.py", tiny_config, "train.epochs=1000", environment=each) for each in environments()
    ]
    run = RunFolder(Path("runs/tiny"))
    wait_for(run.fold(0).epochs)
    os.kill(started[1].pid, number)
    shown = assert_ended(end(*started), 130)
    assert "interrupted: the state is saved after every epoch" in shown
    assert "python run_cv.py" in shown
    assert run.fold(0).checkpoint.exists()  # newer than at the signal, unless that came between two epochs


def test_the_death_of_one_process_in_training_ends_the_other_with_a_remedy(tiny_config: Path) -> None:
    started = [
        start(PROJECT / "run_cv.py", tiny_config, "train.epochs=1000", environment=each) for each in environments()
    ]
    wait_for(Path("runs/tiny/fold0/epochs.jsonl"))
    begun = time.monotonic()
    started[1].kill()
    first, _ = end(*started)
    assert first.code == 2
    assert "another of the 2 processes ended" in first.err
    assert "the same command goes on" in first.err
    assert "Traceback" not in first.err
    assert time.monotonic() - begun < 60


def wait_for(path: Path, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not come"
        time.sleep(0.05)


def steps_of(run: RunFolder) -> list[int]:
    return [json.loads(line)["epoch"] for line in run.fold(0).epochs.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("begun_by", [1, 2])
def test_a_run_begun_by_one_process_is_finished_by_two_and_the_other_way_round(
    begun_by: int, tiny_config: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("train.epochs=15", "images.cache=none", "train.checkpoint_minutes=1.0e-9")
    run = RunFolder(workplace / "runs/tiny")
    alone = [dict(os.environ) | {"PYTHONPATH": str(PROJECT)}]
    begun = environments() if begun_by == 2 else alone
    started = [start(PROJECT / "run_cv.py", tiny_config, *settings, environment=each) for each in begun]
    wait_for(run.fold(0).epochs)
    for process in started:
        process.kill()
    end(*started)
    assert not run.fold(0).done.exists()
    first = run.fold(0).epochs.read_text().splitlines()[0]
    _, facts = load_tensors(run.fold(0).checkpoint)
    if begun_by == 2:
        assert cv(monkeypatch, tiny_config, *settings) == 0
    else:
        assert_ended(cv_together(tiny_config, *settings, folder=workplace), 0)
    assert run.fold(0).epochs.read_text().splitlines()[0] == first  # it continued and did not start again
    assert steps_of(run) == list(range(1, 16))
    assert facts["schedule"]["last_epoch"] == 3 * len(facts["records"]) + facts["sums"]["steps"]  # of the whole batch
    assert is_complete(run, IDS)


@pytest.mark.slow
def test_under_torchrun_the_predictions_equal_those_of_one_process_up_to_rounding(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("model.dropout=0", "model.freeze=[batch_norm]", "train.batch_size=6")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--"]
    command = [*launcher, str(PROJECT / "run_cv.py"), str(tiny_config), *settings, "--run", "two"]
    environment = {key: value for key, value in environments()[0].items() if key not in ("RANK", "LOCAL_RANK")}
    subprocess.run(command, env=environment, check=True, timeout=240, stdout=subprocess.DEVNULL)
    assert cv(monkeypatch, tiny_config, *settings) == 0
    one, two = (RunFolder(Path("runs") / name) for name in ("tiny", "two"))
    assert is_complete(two, IDS)
    ours, theirs = (pd.read_parquet(run.oof).set_index("id").sort_index() for run in (one, two))
    pd.testing.assert_frame_equal(ours, theirs, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_the_notebook_launcher(tiny_config: Path) -> None:
    cell = f"""
from accelerate import notebook_launcher
import run_cv
notebook_launcher(run_cv.run, args=("{tiny_config}", "train.epochs=1"), num_processes=2)
"""
    environment = {
        key: value
        for key, value in environments()[0].items()
        if key not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT")
    }
    (ended,) = end(start("-c", cell, environment=environment))
    assert ended.code == 0, ended.err
    assert is_complete(RunFolder(Path("runs/tiny")), IDS)
