"""A study on disk, and the plan of a small competition."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config import SearchConfig, load_config
from pipeline.run.plan import Plan, prepare
from pipeline.search.storage import open_storage
from pipeline.search.study import TicketStudy
from tests.search.workers import open_study


@pytest.fixture(scope="session")
def empty_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without a study, because creating its tables is slow."""
    folder = tmp_path_factory.mktemp("database")
    open_storage(None, folder / "study.db", lock=folder / "lock")
    return folder / "study.db"


@pytest.fixture
def make_study(tmp_path: Path, empty_tables: Path) -> Callable[..., TicketStudy]:
    """Opens the same SQLite study again, as another worker does."""
    shutil.copy(empty_tables, tmp_path / "study.db")

    def make(**search: object) -> TicketStudy:
        return open_study(None, tmp_path, SearchConfig.model_validate({"trials": 4, **search}))

    return make


@pytest.fixture
def make_plan(tiny_config: Path) -> Callable[..., Plan]:
    """Makes the plan of the small competition with some overrides."""

    def make(*overrides: str) -> Plan:
        return prepare(load_config(tiny_config, overrides), debug=False, listen=lambda _: None)

    return make
