"""A study in a PostgreSQL database, which the tests start on this machine; skipped without PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest

from pipeline.errors import ConfigError
from pipeline.search.storage import opened_storage
from tests.search import studies

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


@pytest.mark.parametrize(
    "check", [studies.check_that_dead_trials_are_retried_once, studies.check_that_each_waiting_trial_is_taken_once]
)
def test_a_study_is_shared_and_its_dead_trials_are_repeated(database: str, check: Callable[[str], None]) -> None:
    with contextlib.suppress(KeyError), opened_storage(database, Path("unused.db")) as storage:
        optuna.delete_study(study_name="test", storage=storage)
    check(database)


def test_an_unreachable_database_is_one_message_without_the_password(database: str, tmp_path: Path) -> None:
    wrong = "postgresql://tester:secret@127.0.0.1:1/postgres"
    with pytest.raises(ConfigError, match="cannot be opened") as caught:
        opened_storage(wrong, tmp_path / "study.db").__enter__()
    assert "secret" not in str(caught.value)
