"""Faults around a training: a full disk, a broken file, a second command."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from pipeline.errors import ImageError
from pipeline.files import write_json
from pipeline.run.cv import run_cv
from pipeline.run.folder import RunFolder
from tests.e2e.commands import cv, ignore, listing, make_plan

SETTINGS = ("images.cache=none", "train.checkpoint_minutes=1.0e-9")


@pytest.fixture
def small_disk(workplace: Path) -> Iterator[Path]:
    """`runs/` as its own disk, with room for about one training state."""
    disk = workplace / "runs"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if made.returncode != 0:
        pytest.skip("a disk of its own needs the right to mount one")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_reported_and_with_more_room_the_same_command_continues(
    small_disk: Path, tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, *SETTINGS) == 2
    message = capsys.readouterr().err
    assert "cannot be written" in message
    assert "No space left" in message
    assert "Traceback" not in message
    assert not [name for name in listing(small_disk) if ".writing-" in name]
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert cv(monkeypatch, tiny_config, *SETTINGS) == 0
    assert cv(monkeypatch, tiny_config, *SETTINGS, "--run", "whole") == 0
    assert (small_disk / "tiny/oof.parquet").read_bytes() == (small_disk / "whole/oof.parquet").read_bytes()


def test_a_file_that_breaks_after_the_check_is_named_and_once_repaired_the_run_continues(tiny_config: Path) -> None:
    plan = make_plan(tiny_config, *SETTINGS)
    whole, run = RunFolder(Path("runs/whole")), RunFolder(Path("runs/tiny"))
    run_cv(plan, whole, folds=None, fresh=False, listen=ignore)
    path = Path("data/train/t.007.png")
    image = path.read_bytes()
    path.write_bytes(image[: len(image) // 2])
    with pytest.raises(ImageError, match=r"t\.007\.png"):
        run_cv(plan, run, folds=None, fresh=False, listen=ignore)
    path.write_bytes(image)
    run_cv(plan, run, folds=None, fresh=False, listen=ignore)
    assert run.oof.read_bytes() == whole.oof.read_bytes()


def test_a_second_command_on_a_fold_names_the_process_that_trains_it(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, "--folds", "1") == 0
    folder = RunFolder(Path("runs/tiny")).fold(0)
    folder.resume.mkdir(parents=True)
    write_json(folder.owner, {"pid": os.getpid(), "host": socket.gethostname()})
    with FileLock(folder.lock):
        assert cv(monkeypatch, tiny_config) == 2
    message = capsys.readouterr().err
    assert "is being trained by another process" in message
    assert f"process {os.getpid()} on {socket.gethostname()}" in message
