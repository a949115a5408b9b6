"""A few of the random tries of `interruptions.py`; one process of its own has forked them all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

FINE = {"2, one message, goes on", "130, one message, goes on", "was not needed any more", "had finished its work"}
FINE |= {"no worker was left to kill", "had ended before"}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["workers", "signals"])
def test_random_moments(what: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.fuzz.interruptions", what, "24"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "TMPDIR": str(tmp_path)}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(ended.stdout[ended.stdout.index("{") :])
    assert found.keys() <= FINE
    assert sum(found.values()) == 24
    assert max(found.get("2, one message, goes on", 0), found.get("130, one message, goes on", 0)) > 4
