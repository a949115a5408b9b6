"""Several processes train one fold together: one run, one voice, one end."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pandas as pd
import pytest

from pipeline.config import load_config
from pipeline.errors import ConfigError
from pipeline.plan import prepare
from pipeline.runs import RunFolder
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
    settings = ("train.batch_size=5", "train.select=best", "train.parallel_folds=2", "predict.views=[identity,hflip]")
    said = assert_ended(cv_together(tiny_config, *settings, "train.time_budget=1h"), 0)
    assert "train.parallel_folds=2: 2 processes train each fold, one fold after the other" in said
    assert said.count("fold 1 finished") == 1
    run = RunFolder(workplace / "runs/tiny")
    assert is_complete(run, IDS)
    assert json.loads(run.scores.read_text())["metric"] == "f1_macro"
    assert not run.fold(0).resume.exists()
    assert not [*run.path.rglob(".writing-*")]


def test_an_image_that_breaks_in_one_process_ends_both_with_one_message(tiny_config: Path, workplace: Path) -> None:
    image = workplace / "data/train/t.007.png"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2] + whole[-12:])  # behind a whole header: training finds it
    said = assert_ended(cv_together(tiny_config, "images.cache=none"), 2)
    assert said.count("error: ") == 1
    assert "t.007.png" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--check"], "--check works in one process, but 2 were started"),
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
    monkeypatch.setattr("pipeline.processes._group.count", 2)
    assert cv(monkeypatch, tiny_config, *words) == 2
    assert message in capsys.readouterr().err


def test_each_of_several_processes_needs_an_image_of_every_batch(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.processes._group.count", 13)
    with pytest.raises(ConfigError, match="a batch of 4 images has not one for each of 13 processes"):
        prepare(load_config(tiny_config), debug=False, listen=lambda _: None)
    with pytest.raises(ConfigError, match="a batch of 12 images"):  # so many train in a fold
        prepare(load_config(tiny_config, ["train.batch_size=100"]), debug=False, listen=lambda _: None)


def test_a_submission_is_made_by_one_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.processes._group.count", 2)
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


def wait_for(path: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not come"
        time.sleep(0.05)
