"""A finished run, trained once for all tests that only look at it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TINY, make_wide_competition
from tests.e2e.commands import cv


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the small competition; copy it before changing it."""
    place = tmp_path_factory.mktemp("finished")
    make_wide_competition(place / "data")
    (place / "tiny.yaml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert cv(patch, "tiny.yaml") == 0
    return place / "runs/tiny"
