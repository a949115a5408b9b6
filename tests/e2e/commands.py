"""The commands, run in this process with the arguments of a shell."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

import make_submission
import pipeline.__main__
import run_cv
from pipeline.config import load_config
from pipeline.events import Event
from pipeline.run.plan import Plan, prepare


class Killed(BaseException):
    """Ends a run in this process like a kill."""


def ignore(_: Event) -> None:
    """A listener that does nothing."""


def make_plan(config: Path, *overrides: str) -> Plan:
    """The plan of a config with some overrides."""
    return prepare(load_config(config, overrides), debug=False, listen=ignore)


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    """The output since the last call, with single spaces instead of line breaks."""
    return " ".join(capsys.readouterr().out.split())


def cv(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    """The exit code of `python run_cv.py WORDS`."""
    line = ["run_cv.py", *map(str, words)]
    monkeypatch.setattr(sys, "argv", line)
    return run_cv.command(line[1:])


def submission(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    """The exit code of `python make_submission.py WORDS`."""
    monkeypatch.setattr(sys, "argv", ["make_submission.py", *map(str, words)])
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(SystemExit) as ended:
            make_submission.console_script()
    finally:  # the end of the command ignores both signals, and processes that a later test starts would, too
        for number, handler in before.items():
            signal.signal(number, handler)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def verb(*words: str | Path) -> int:
    """The exit code of `python -m pipeline WORDS`."""
    return pipeline.__main__.main([str(word) for word in words])


def listing(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` with its content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
