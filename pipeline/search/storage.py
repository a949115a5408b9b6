"""The study's database: its URL, a lock around several steps, the heartbeat of a running trial."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pipeline.errors import ConfigError, RunError, listing

HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 60  # without a heartbeat; then a trial counts as dead
_LOCK_SECONDS = 300


def open_storage(
    asked: str | None, sqlite: Path, *, lock: Path, heartbeat: int = HEARTBEAT_SECONDS, grace: int = GRACE_SECONDS
) -> RDBStorage:
    """Open the database that `search.storage` names; None is the file `sqlite`.

    `$NAME` in a URL is replaced by that environment variable, so a config need not contain a password.

    Raises:
        ConfigError: the URL is wrong, its driver is not installed, or the database cannot be reached.
    """
    url = _checked_url(asked, sqlite)
    _refuse_other_database(url)
    waiting = {"connect_args": {"timeout": 60}} if url.get_backend_name() == "sqlite" else {"pool_pre_ping": True}
    try:
        with warnings.catch_warnings(), _file_locked(lock):  # two processes would create the same tables
            warnings.simplefilter("ignore", ExperimentalWarning)  # on heartbeats
            return RDBStorage(
                url.render_as_string(hide_password=False),
                engine_kwargs=waiting,
                heartbeat_interval=heartbeat,
                grace_period=grace,
            )
    except ImportError:
        raise ConfigError(
            f"search.storage={url}: the driver of this database is not installed",
            remedy="for PostgreSQL: pip install 'q2l-pipeline[postgres]'",
        ) from None
    except (SQLAlchemyError, StorageInternalError) as error:
        raise ConfigError(
            f"search.storage={url}: the database cannot be opened",
            got=str(error.__cause__ or error).splitlines()[0],
            remedy="start the database, or correct the URL; null is a file in the run folder",
        ) from None


def _refuse_other_database(url: sqlalchemy.URL) -> None:
    """Refuse an SQLite file that is not a database of Optuna: its tables would be added to it."""
    path = Path(url.database or "")
    if url.get_backend_name() != "sqlite" or not path.is_file() or path.stat().st_size == 0:
        return
    engine = sqlalchemy.create_engine(url)
    try:
        tables = sqlalchemy.inspect(engine).get_table_names()
    except SQLAlchemyError:
        return  # Optuna's own error follows
    finally:
        engine.dispose()
    if tables and "alembic_version" not in tables:
        raise ConfigError(
            f"search.storage: {path} is the database of another program",
            got=f"the tables {listing(tables)}",
            remedy="name a new file, or set search.storage=null",
        )


def _checked_url(asked: str | None, sqlite: Path) -> sqlalchemy.URL:
    if asked is None:
        sqlite.parent.mkdir(parents=True, exist_ok=True)
        return sqlalchemy.URL.create("sqlite", database=str(sqlite.absolute()))
    try:
        url = sqlalchemy.make_url(os.path.expandvars(asked))
    except ArgumentError:
        raise ConfigError(
            "search.storage is not a database URL",
            expected="null, or something like postgresql://user@host/database",
            remedy="correct it; $NAME in it is replaced by an environment variable",
        ) from None
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


@contextlib.contextmanager
def locked(storage: RDBStorage, study: str, lock: Path) -> Iterator[None]:
    """Exclude all other workers of this study: on this machine by the file `lock`, on PostgreSQL on all machines.

    Optuna claims a trial in two steps that SQLite does not make atomic, so two workers could get the same trial.

    Raises:
        RunError: a process of this machine holds the lock for minutes.
    """
    with _file_locked(lock):
        if storage.engine.dialect.name != "postgresql":
            yield
            return
        key = int.from_bytes(hashlib.blake2b(study.encode(), digest_size=8).digest(), "big", signed=True)
        with storage.engine.connect() as connection:  # a killed worker loses its connection and so releases it
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
            try:
                yield
            finally:
                connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": key})


@contextlib.contextmanager
def _file_locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=_LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(
            f"{path} is held by another process for more than {_LOCK_SECONDS} seconds",
            remedy="look for a process of this search that hangs, and end it",
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def beating(storage: RDBStorage, trial_id: int) -> Iterator[None]:
    """Record heartbeats of this trial at intervals."""
    interval = storage.get_heartbeat_interval()
    ended = threading.Event()

    def beat() -> None:
        while True:
            with contextlib.suppress(StorageInternalError):  # unreachable for a moment: the next beat tries again
                storage.record_heartbeat(trial_id)
            if ended.wait(interval):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
