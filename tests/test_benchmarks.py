"""The benchmark of a GPU runs to its end on a CPU."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import PROJECT


@pytest.mark.slow
def test_the_dry_run_prints_the_table() -> None:
    command = [sys.executable, str(PROJECT / "benchmarks/gpu.py"), "--dry-run"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=480)
    assert ended.returncode == 0, ended.stdout
    lines = ended.stdout.splitlines()
    assert "passed" in lines[0] or "skipped" in lines[0]
    for row in ("fp32", "bf16", "bf16, torch.compile"):
        assert sum(line.startswith(f"│ {row} ") for line in lines) == 1
