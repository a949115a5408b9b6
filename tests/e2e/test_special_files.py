"""Pipes, devices, sockets and folders where a file is read: an error that names it, and no command that waits."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from run_cv import command
from tests.e2e.commands import cv, submission, verb

SECONDS = 30


@pytest.fixture(autouse=True)
def _impatient() -> Iterator[None]:
    def fail(*_: object) -> None:
        raise AssertionError(f"the command waits for more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name if len(str(path)) > 100 else str(path))
        if len(str(path)) > 100:
            shutil.move(path.name, path)


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "socket": make_socket,
    "folder": Path.mkdir,
}
FILES = {
    "tiny.yaml": [],
    "data/train.csv": [],
    "data/test.csv": [],
    "data/sample_submission.csv": [],
    "data/train/t.003.png": [],
    "data/folds.csv": ["folds.file=folds.csv"],
    "data/sites.csv": ["competition.groups={file: sites.csv, column: site}"],
    "data/more.csv": ["competition.join={file: more.csv, on: id}"],
    "data/corrections.csv": ["competition.corrections=corrections.csv"],
    "data/left_out.txt": ["competition.exclude=left_out.txt"],
    "metric.py": ["competition.metric={function: 'metric.py:score'}"],
    "w.safetensors": ["model.weights=w.safetensors"],
    "w.pth": ["model.weights=w.pth"],
    "b.pth": ["model.backbone_weights=b.pth"],
    "queries.npy": ["model.query_init=queries.npy"],
}
SOME = ("data/train.csv", "data/train/t.003.png", "w.safetensors", "w.pth")


def replace(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    KINDS[kind](path)


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "pipe") for name in FILES), *((name, kind) for name in SOME for kind in KINDS)]
)
def test_a_file_of_the_training_that_is_none(
    name: str, kind: str, tiny_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(tiny_config.parent / name, kind)
    assert command(["tiny.yaml", *FILES[name]]) == 2
    message = capsys.readouterr().err
    assert message.count("error: ") == 1
    assert Path(name).name in message
    assert not Path("runs").exists()


READERS: dict[str, Callable[[pytest.MonkeyPatch], int]] = {
    "run_cv.py": lambda patch: cv(patch, "tiny.yaml"),
    "make_submission.py": lambda patch: submission(patch, "runs/tiny"),
    "compare": lambda _: verb("compare", "runs/tiny", "runs/tiny"),
    "curves": lambda _: verb("curves", "runs/tiny", "curves.png"),
    "figures": lambda _: verb("figures", "runs/tiny", "sheet.png", "--count", "2"),
    "attention": lambda _: verb("attention", "runs/tiny", "data/train/t.003.png"),
}
READ = {
    "config.yaml": ["run_cv.py", "make_submission.py", "compare"],
    "folds.csv": ["run_cv.py", "compare"],
    "oof.parquet": ["compare", "figures"],
    "thresholds.json": ["make_submission.py", "figures"],
    "scores.json": ["make_submission.py"],
    "fold0/weights.safetensors": ["attention"],
    "fold0/epochs.jsonl": ["curves"],
    "fold0/done.json": ["run_cv.py"],
}


@pytest.mark.parametrize(("name", "reader"), [(name, reader) for name, readers in READ.items() for reader in readers])
def test_a_link_to_a_pipe_in_a_run_folder(
    name: str,
    reader: str,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(finished.parent.parent, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    path = Path("runs/tiny", name)
    path.unlink()
    os.mkfifo(tmp_path / "pipe")
    path.symlink_to(tmp_path / "pipe")
    assert READERS[reader](monkeypatch) == 2
    message = capsys.readouterr().err
    assert message.count("error: ") == 1
    assert path.name in message
    assert {each.name for each in tmp_path.iterdir()} <= {"data", "runs", "tiny.yaml", "pipe"}


@pytest.mark.parametrize("kind", ["pipe", "folder"])
@pytest.mark.parametrize(
    "words",
    [
        ["new", "odd", "data/train"],
        ["validate", "tiny.yaml", "odd"],
        ["truth", "runs/tiny", "odd"],
        ["attention", "runs/tiny", "odd"],
    ],
)
def test_a_file_that_an_argument_names(
    words: list[str],
    kind: str,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(finished.parent.parent, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    replace(tmp_path / "odd", kind)
    assert verb(*words) == 2
    message = capsys.readouterr().err
    assert message.count("error: ") == 1
    assert "odd" in message or words[0] == "truth"  # a run without a submission
