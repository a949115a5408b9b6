from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from pipeline.commands import run_command
from pipeline.machine import refusal
from tests.conftest import PROJECT


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.ENOSPC, errno.EROFS, errno.ENAMETOOLONG])
def test_a_refusal_of_the_machine_is_one_message(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> None:
        raise OSError(number, os.strerror(number), "data/a.csv")

    assert run_command(refused, "python x.py") == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: data/a.csv: {os.strerror(number)}\n  remedy:   ")


def test_a_thread_that_cannot_be_started_is_a_refusal() -> None:
    assert "ulimit -u" in str(refusal(RuntimeError("can't start new thread")))


@pytest.mark.parametrize(("soft", "hard", "code"), [(12, 12, 2), (40, 63, 2), (64, 64, 0), (256, 512, 0)])
def test_too_few_open_files_are_refused_at_once_and_a_soft_limit_is_raised(soft: int, hard: int, code: int) -> None:
    script = (
        "import resource, sys\nfrom pipeline.commands import run_command\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "sys.exit(run_command(lambda: print(resource.getrlimit(resource.RLIMIT_NOFILE)[0]), 'python x.py'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT)
    assert (done.returncode, done.stdout) == (code, "" if code else f"{hard}\n")
    assert done.stderr.startswith("error: this command may open too few files\n  expected: at least 64") == (code == 2)


@pytest.mark.parametrize("bug", [FileNotFoundError(errno.ENOENT, "no"), RuntimeError("no"), OSError("no")])
def test_a_bug_is_not_hidden(bug: Exception) -> None:
    def fail() -> None:
        raise bug

    with pytest.raises(type(bug)):
        run_command(fail, "python x.py")
