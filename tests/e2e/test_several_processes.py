"""Several processes train one fold together: one run, one voice, one end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from pipeline.competition.folds.rows import FULL_FIT
from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.run.folder import RunFolder
from pipeline.run.plan import prepare
from tests.conftest import LABELS, PROJECT
from tests.e2e.commands import cv, submission
from tests.together import Ended, cv_together, end, environments, start


def assert_ended(ended: list[Ended], code: int) -> str:
    """Both with `code`, and only the first spoke; what it said, with its white space made single."""
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
    said = assert_ended(cv_together(tiny_config, *settings, *more, folder=workplace), 0)
    assert "train.parallel_folds=2: 2 processes train each fold, one fold after the other" in said
    assert said.count("fold 1 finished") == said.count("full fit finished") == 1
    run = RunFolder(workplace / "runs/tiny")
    assert is_complete(run, IDS)
    assert json.loads(run.scores.read_text())["metric"] == "f1_macro"
    assert all(run.fold(fold).is_trained(load_config(tiny_config, more).train) for fold in (0, 1, FULL_FIT))
    assert not run.fold(0).resume.exists()
    assert not [*run.path.rglob(".writing-*")]


def test_an_image_that_breaks_in_one_process_ends_both_with_one_message(tiny_config: Path, workplace: Path) -> None:
    image = workplace / "data/train/t.007.png"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2] + whole[-12:])  # behind a whole header: training finds it
    said = assert_ended(cv_together(tiny_config, "images.cache=none", folder=workplace), 2)
    assert said.count("error: ") == 1
    assert "t.007.png" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--search"], "--search works in one process, but 2 were started"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(
    tiny_config: Path,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("pipeline.processes.group.group.count", 2)
    assert cv(monkeypatch, tiny_config, *words) == 2
    assert message in capsys.readouterr().err


def test_each_of_several_processes_needs_an_image_of_every_batch(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.processes.group.group.count", 13)
    with pytest.raises(ConfigError, match="a batch of 4 images has not one for each of 13 processes"):
        prepare(load_config(tiny_config), debug=False, listen=lambda _: None)
    with pytest.raises(ConfigError, match="a batch of 12 images"):  # so many train in a fold
        prepare(load_config(tiny_config, ["train.batch_size=100"]), debug=False, listen=lambda _: None)


def test_a_submission_is_made_by_one_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.processes.group.group.count", 2)
    assert submission(monkeypatch, "runs/tiny") == 2
    assert "make_submission.py works in one process, but 2 were started" in capsys.readouterr().err


@pytest.mark.slow
def test_a_signal_to_one_process_interrupts_both(tiny_config: Path, workplace: Path) -> None:
    started = [
        start(PROJECT / "run_cv.py", tiny_config, "train.epochs=1000", environment=each) for each in environments()
    ]
    wait_for(workplace / "runs/tiny/fold0/epochs.jsonl")
    started[1].terminate()
    said = assert_ended(end(*started), 130)
    assert "interrupted: the state is saved after every epoch" in said


def wait_for(path: Path, seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not come"
        time.sleep(0.05)


@pytest.mark.slow
def test_killed_processes_go_on_together_or_alone(
    tiny_config: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("train.epochs=15", "images.cache=none", "train.checkpoint_minutes=1.0e-9")
    whole, killed, alone = (RunFolder(workplace / "runs" / name) for name in ("whole", "tiny", "alone"))
    assert "fold 1 finished" in assert_ended(cv_together(tiny_config, *settings, "--run", "whole", folder=workplace), 0)
    started = [start(PROJECT / "run_cv.py", tiny_config, *settings, environment=each) for each in environments()]
    wait_for(killed.fold(0).epochs)
    for process in started:
        os.kill(process.pid, signal.SIGKILL)
    end(*started)
    assert not killed.fold(0).done.exists()
    shutil.copytree(killed.path, alone.path)
    assert_ended(cv_together(tiny_config, *settings, folder=workplace), 0)
    assert killed.oof.read_bytes() == whole.oof.read_bytes()
    begun = killed.fold(0).epochs.read_text().splitlines()[0]
    assert cv(monkeypatch, tiny_config, *settings, "--run", "alone") == 0
    assert alone.fold(0).epochs.read_text().splitlines()[0] == begun  # gone on from, not begun anew
    assert is_complete(alone, IDS)


@pytest.mark.slow
def test_torchrun_starts_them_and_the_scores_are_those_of_one_process_but_for_rounding(
    tiny_config: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("model.dropout=0", "train.batch_size=6")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--"]
    command = [*launcher, str(PROJECT / "run_cv.py"), str(tiny_config), *settings, "--run", "two"]
    environment = {key: value for key, value in environments()[0].items() if key not in ("RANK", "LOCAL_RANK")}
    subprocess.run(command, env=environment, check=True, timeout=240, stdout=subprocess.DEVNULL)
    assert cv(monkeypatch, tiny_config, *settings) == 0
    one, two = (RunFolder(workplace / "runs" / name) for name in ("tiny", "two"))
    assert is_complete(two, IDS)
    ours, theirs = (pd.read_parquet(run.oof).set_index("id").sort_index() for run in (one, two))
    pd.testing.assert_frame_equal(ours, theirs, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_the_notebook_launcher_starts_them(tiny_config: Path, workplace: Path) -> None:
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
    assert is_complete(RunFolder(workplace / "runs/tiny"), IDS)
