"""Several workers on one PostgreSQL database, which the tests start on this machine; skipped without PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import SearchConfig
from pipeline.errors import ConfigError
from pipeline.search.storage import open_storage
from tests.search.workers import OWN, open_study, work_side_by_side

pytestmark = pytest.mark.postgres


def _binaries() -> Path | None:
    """The folder of initdb and pg_ctl, which on Debian is not on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URL of an empty database; its server stops after the tests."""
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed (extra `postgres`)")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed (initdb was not found)")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    user = "nobody" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    if user is not None:
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(*words: str) -> None:
        done = subprocess.run(words, user=user, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    data = str(folder / "data")
    call(str(binaries / "initdb"), "-D", data, "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
    call(str(binaries / "pg_ctl"), "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    finally:
        call(str(binaries / "pg_ctl"), "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def test_two_processes_share_a_study_and_a_dead_trial_is_repeated(database: str, tmp_path: Path) -> None:
    """The lock files lie in two folders, as on two machines, so only the database excludes the other worker."""
    codes = work_side_by_side(database, tmp_path, trials=12, die_at=3, apart=True)
    with contextlib.closing(open_study(database, tmp_path, SearchConfig(trials=12))) as study:
        trials = study.study.get_trials()
    killed = codes[1] == -signal.SIGKILL
    expected = {"COMPLETE": 12} | ({"FAIL": 1} if killed else {})
    assert dict(Counter(trial.state.name for trial in trials)) == expected
    assert [trial.params for trial in trials].count(OWN) == 1
    retried = [trial.params for trial in trials if trial.user_attrs["kind"] == "retry"]
    assert retried == ([trials[3].params] if killed else [])


def test_an_unreachable_database_is_one_message_without_the_password(database: str, tmp_path: Path) -> None:
    wrong = "postgresql://tester:secret@127.0.0.1:1/postgres"
    with pytest.raises(ConfigError, match="cannot be opened") as caught:
        open_storage(wrong, tmp_path / "study.db", lock=tmp_path / "lock")
    assert "secret" not in str(caught.value)
