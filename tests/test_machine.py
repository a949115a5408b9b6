from __future__ import annotations

import errno
import os

import pytest

from pipeline.commands import run_command
from pipeline.machine import refusal


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.ENOSPC, errno.EROFS, errno.ENAMETOOLONG])
def test_a_refusal_of_the_machine_is_one_message(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> None:
        raise OSError(number, os.strerror(number), "data/a.csv")

    assert run_command(refused, "python x.py") == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: data/a.csv: {os.strerror(number)}\n  remedy:   ")


def test_a_thread_that_cannot_be_started_is_a_refusal() -> None:
    assert "ulimit -u" in str(refusal(RuntimeError("can't start new thread")))


@pytest.mark.parametrize("bug", [FileNotFoundError(errno.ENOENT, "no"), RuntimeError("no"), OSError("no")])
def test_a_bug_is_not_hidden(bug: Exception) -> None:
    def fail() -> None:
        raise bug

    with pytest.raises(type(bug)):
        run_command(fail, "python x.py")
