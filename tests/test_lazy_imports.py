"""Slow libraries are imported where they are used: a command that does not need them does not wait for them."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import PROJECT

SLOW = ("matplotlib", "scipy.stats", "sklearn")


def test_the_commands_import_no_slow_library_at_their_start() -> None:
    script = f"import sys, run_cv, make_submission; print([name for name in {SLOW} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, check=True)
    assert done.stdout == "[]\n"
