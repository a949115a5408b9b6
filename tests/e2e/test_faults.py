"""What goes wrong around a training, with the real fault: a full disk, a broken file, a second command."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from pipeline.config import load_config
from pipeline.errors import ImageError
from pipeline.events import Event
from pipeline.files import write_json
from pipeline.run.cv import run_cv
from pipeline.run.folder import RunFolder
from pipeline.run.plan import prepare
from tests.e2e.commands import cv, listing

SETTINGS = ("images.cache=none", "train.checkpoint_minutes=1.0e-9")


@pytest.fixture
def small_disk(workplace: Path) -> Iterator[Path]:
    """`runs/` on a disk of its own that holds about one training state."""
    disk = workplace / "runs"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if made.returncode != 0:
        pytest.skip("a disk of its own needs the right to mount one")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_told_and_with_room_the_same_command_goes_on(
    small_disk: Path, tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, *SETTINGS) == 2
    told = capsys.readouterr().err
    assert "cannot be written" in told
    assert "No space left" in told
    assert "Traceback" not in told
    assert not [name for name in listing(small_disk) if ".writing-" in name]
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert cv(monkeypatch, tiny_config, *SETTINGS) == 0
    assert cv(monkeypatch, tiny_config, *SETTINGS, "--run", "whole") == 0
    assert (small_disk / "tiny/oof.parquet").read_bytes() == (small_disk / "whole/oof.parquet").read_bytes()


def test_a_file_that_breaks_after_the_check_is_named_and_mended_the_run_goes_on(
    tiny_config: Path, workplace: Path
) -> None:
    def ignore(_: Event) -> None:
        pass

    plan = prepare(load_config(tiny_config, SETTINGS), debug=False, listen=ignore)
    whole, run = RunFolder(Path("runs/whole")), RunFolder(Path("runs/tiny"))
    run_cv(plan, whole, folds=None, fresh=False, listen=ignore)
    path = workplace / "data/train/t.007.png"
    image = path.read_bytes()
    path.write_bytes(image[: len(image) // 2])
    with pytest.raises(ImageError, match=r"t\.007\.png"):
        run_cv(plan, run, folds=None, fresh=False, listen=ignore)
    path.write_bytes(image)
    run_cv(plan, run, folds=None, fresh=False, listen=ignore)
    assert run.oof.read_bytes() == whole.oof.read_bytes()


def test_a_second_command_on_a_fold_is_told_who_trains_it(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, "--folds", "1") == 0
    folder = RunFolder(Path("runs/tiny")).fold(0)
    folder.resume.mkdir(parents=True)
    write_json(folder.owner, {"pid": os.getpid(), "host": socket.gethostname()})
    with FileLock(folder.lock):
        assert cv(monkeypatch, tiny_config) == 2
    told = capsys.readouterr().err
    assert "is being trained by another process" in told
    assert f"process {os.getpid()} on {socket.gethostname()}" in told
