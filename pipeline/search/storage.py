"""The study's database: its URL, and how dead trials are noticed and tried again."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pipeline.errors import ConfigError, RunError, listing

HEARTBEAT_SECONDS = 10
_STUDY_INDEX = "CREATE UNIQUE INDEX IF NOT EXISTS ix_studies_study_name ON studies (study_name)"
GRACE_SECONDS = 60  # without a heartbeat; then a trial counts as dead


@contextlib.contextmanager
def opened_storage(
    asked: str | None, sqlite: Path, *, heartbeat: int = HEARTBEAT_SECONDS, grace: int = GRACE_SECONDS
) -> Iterator[RDBStorage]:
    """Open the database that `search.storage` names; None is the file `sqlite`. Closed at the end.

    `$NAME` in a URL is replaced by that environment variable, so a config need not contain a password.

    Raises:
        ConfigError: the URL is wrong, its driver is not installed, or the database cannot be reached.
        RunError: it fails later, for example on a full disk.
    """
    url = _checked_url(asked, sqlite)
    _refuse_other_database(url, own=asked is None)
    is_sqlite = url.get_backend_name() == "sqlite"
    options = {"connect_args": {"timeout": 60, "isolation_level": None}} if is_sqlite else {"pool_pre_ping": True}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # on heartbeats
            storage = RDBStorage(
                url.render_as_string(hide_password=False),
                engine_kwargs=options,
                heartbeat_interval=heartbeat,
                grace_period=grace,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=1),
            )
        if is_sqlite:
            # A command that ended between the table and its index left a database that takes a study twice.
            with storage.engine.connect() as connection:
                connection.exec_driver_sql(_STUDY_INDEX)
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
    if is_sqlite:
        sqlalchemy.event.listen(storage.engine, "begin", _begin_immediate)
    try:
        yield storage
    except (SQLAlchemyError, StorageInternalError) as error:
        raise RunError(
            f"search.storage={url}: the study cannot be read or written",
            got=str(error.__cause__ or error).splitlines()[0],
            remedy="free some space, start the database again or restore it; else start over with --fresh",
        ) from None
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _begin_immediate(connection: sqlalchemy.Connection) -> None:
    """Lock the file before the first read: Optuna reads a waiting trial, then takes it, and SQLite locks no rows."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _refuse_other_database(url: sqlalchemy.URL, *, own: bool) -> None:
    """Refuse an SQLite file that is not a database of Optuna: its tables would be added to it.

    The run's `own` database may be half-made, by a killed command.
    """
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
    half_made = own and all(name.startswith(("stud", "trial", "version_info")) for name in tables)
    if "alembic_version" not in tables and not half_made:
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
