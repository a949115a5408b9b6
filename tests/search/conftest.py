"""A study on disk, and the plan of a small competition."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import optuna
import pytest

from pipeline.config import SearchConfig, load_config
from pipeline.run.plan import Plan, prepare
from pipeline.search.storage import opened_storage
from tests.search.studies import opened_study


@pytest.fixture(scope="session")
def empty_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without a study, because creating its tables is slow."""
    file = tmp_path_factory.mktemp("database") / "study.db"
    with opened_storage(None, file):
        return file


@pytest.fixture
def database(tmp_path: Path, empty_tables: Path) -> str:
    """The URL of an empty database in a file."""
    return f"sqlite:///{shutil.copy(empty_tables, tmp_path / 'study.db')}"


@pytest.fixture
def open_study(database: str) -> Callable[..., AbstractContextManager[optuna.Study]]:
    """Opens the same study again, as another worker does."""
    return lambda **search: opened_study(database, SearchConfig.model_validate(search))


@pytest.fixture
def make_plan(tiny_config: Path) -> Callable[..., Plan]:
    """Makes the plan of the small competition with some overrides."""

    def make(*overrides: str) -> Plan:
        return prepare(load_config(tiny_config, overrides), debug=False, listen=lambda _: None)

    return make
