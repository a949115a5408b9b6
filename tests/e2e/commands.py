"""The two commands, run in this process as a person would run them in a shell."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import make_submission
import run_cv
from pipeline.commands import run_command


def cv(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    """The exit code of `python run_cv.py WORDS`."""
    return _run(monkeypatch, "run_cv.py", words, lambda: run_cv.main(run_cv.parse_arguments()))


def submission(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    """The exit code of `python make_submission.py WORDS`."""
    main = make_submission.main
    return _run(monkeypatch, "make_submission.py", words, lambda: main(make_submission.parse_arguments()))


def _run(monkeypatch: pytest.MonkeyPatch, name: str, words: tuple[str | Path, ...], command: Callable[[], None]) -> int:
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    return run_command(command, after_interrupt="")


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` with its content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
