"""run_cv.py, killed with SIGKILL at random moments and started again until it ends, writes the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.run.folder import RunFolder
from tests.conftest import PROJECT

KILLS = 5
LONGEST = 25.0  # seconds until a kill; the run takes 25 to 60 seconds
SETTINGS = (
    "folds.count=2",
    "train.epochs=2",
    "train.parallel_folds=2",
    "train.checkpoint_minutes=0.02",
    "model.dropout=0.2",
)


def start(place: Path, name: str) -> subprocess.Popen[bytes]:
    """The demo, shortened, as the leader of a group of processes."""
    words = [sys.executable, str(PROJECT / "run_cv.py"), str(PROJECT / "configs/demo.yaml"), *SETTINGS, "--run", name]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.Popen(
        [*words, f"competition.root={place / 'data'}"],
        cwd=place,
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def names(run: RunFolder) -> set[str]:
    return {str(path.relative_to(run.path)) for path in run.path.rglob("*")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the competition, with a run that was not killed."""
    place = tmp_path_factory.mktemp("kills")
    assert start(place, "whole").wait() == 0
    return place


def killed_until_it_ends(place: Path, name: str, generator: random.Random) -> int:
    """How often the command was killed, at most `KILLS` times, until it ended with exit code 0."""
    for kills in range(KILLS):
        process = start(place, name)
        try:
            assert process.wait(timeout=generator.uniform(0, LONGEST)) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        else:
            return kills
    assert start(place, name).wait() == 0
    return KILLS


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_command_killed_at_random_moments_ends_with_the_same_bytes(seed: int, place: Path) -> None:
    shutil.rmtree(place / "runs/.cache")  # so that it can be killed while it builds the cache
    kills = killed_until_it_ends(place, f"killed{seed}", random.Random(seed))
    assert kills > 0
    whole, killed = RunFolder(place / "runs/whole"), RunFolder(place / f"runs/killed{seed}")
    assert killed.oof.read_bytes() == whole.oof.read_bytes()
    assert names(killed) == names(whole)
    for fold in (0, 1):
        assert killed.fold(fold).weights.read_bytes() == whole.fold(fold).weights.read_bytes()
