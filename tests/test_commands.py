"""Exit codes and messages of a command, and what its start needs: device, precision, environment."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline import interrupts
from pipeline.commands import run_command
from pipeline.console import make_console
from pipeline.device import keep_freed_memory, loading_workers, resolve_precision
from pipeline.errors import ConfigError, listing, nearest
from pipeline.events import Note
from pipeline.report.live import LiveProgress
from pipeline.run.environment import describe_environment
from tests.conftest import PROJECT


def test_a_mistake_of_the_user_is_one_message_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise ConfigError("a.yaml: wrong", expected="b", got="c", remedy="d")

    assert run_command(command, "") == 2
    assert capsys.readouterr().err == "error: a.yaml: wrong\n  expected: b\n  got:      c\n  remedy:   d\n"


def test_an_interrupt_and_a_termination_print_the_command_to_start_again(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    def terminated() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    for command in (interrupted, terminated):
        assert run_command(command, "python run_cv.py x") == 130
        assert "python run_cv.py x" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def swallow() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def turn_into_a_bug() -> None:
    swallow()
    raise ImportError("cannot import name 'x'")


def in_a_finalizer() -> None:
    class Closed:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    Closed()
    LiveProgress(make_console())(Note("the next event"))
    raise AssertionError("the event raises")


def wait_for_imports() -> None:
    with interrupts.deferred():
        signal.raise_signal(signal.SIGINT)
    raise AssertionError("the end of the block raises")


def log() -> None:
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        logging.Logger("a library").exception("while a connection was closed")
        raise


@pytest.mark.parametrize("main", [log, swallow, turn_into_a_bug, in_a_finalizer, wait_for_imports])
def test_no_interruption_is_lost_or_ends_in_a_traceback(
    main: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, "python run_cv.py x") == 130
    assert capsys.readouterr().err == "\ninterrupted: nothing is finished; to start again:\n  python run_cv.py x\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_message_is_printed_changes_nothing(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def write(self, text: str) -> int:
            signal.raise_signal(number)
            return super().write(text)

    def command() -> None:
        raise ConfigError("a.yaml: wrong", remedy="d")

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert run_command(command, "") == 2
    assert terminal.getvalue() == "error: a.yaml: wrong\n  remedy:   d\n"


def test_a_signal_to_another_thread_does_not_interrupt_the_start_of_a_process() -> None:
    ended, steps = threading.Event(), []
    other = threading.Thread(target=ended.wait)
    other.start()

    def command() -> None:
        with interrupts.blocked():
            os.kill(os.getpid(), signal.SIGTERM)  # this thread blocks it, so the other one receives it
            time.sleep(0.1)
            steps.append("started")
        steps.append("not interrupted")

    assert run_command(command, "") == 130
    ended.set()
    other.join()
    assert steps == ["started"]


STUBBORN = """
import time
from pipeline import interrupts
from pipeline.commands import end_process, run_command

def main():
    with interrupts.deferred():
        print("begun", flush=True)
        time.sleep(60)

end_process(lambda: run_command(main, "python run_cv.py x"))
"""


def test_a_second_ctrl_c_ends_at_once() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT
    )
    assert process.stdout is not None
    process.stdout.readline()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.5)
    _, err = process.communicate(timeout=5)
    assert process.returncode == 130
    assert err == "\ninterrupted: nothing is finished; to start again:\n  python run_cv.py x\n"


EARLY_AND_LATE = """
import signal
from pipeline.commands import end_process, run_command

def command():
    signal.raise_signal(signal.{early})  # while the arguments are read
    code = run_command(lambda: print("works"), "python run_cv.py x")
    signal.raise_signal(signal.{late})
    return code

end_process(command)
"""


@pytest.mark.parametrize(
    ("early", "late", "code"), [("SIGINT", "SIGTERM", 130), ("SIGTERM", "SIGINT", 130), ("SIGCONT", "SIGINT", 0)]
)
def test_a_signal_before_the_command_is_kept_and_one_after_it_changes_nothing(early: str, late: str, code: int) -> None:
    script = EARLY_AND_LATE.format(early=early, late=late)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT)
    assert (done.returncode, done.stdout) == (code, "" if code else "works\n")
    assert done.stderr.count("interrupted: ") == (code == 130)


@pytest.mark.parametrize("words", [["run_cv.py"], ["-m", "pipeline", "check"]])
def test_a_mistake_in_a_config_does_not_wait_for_torch(words: list[str], tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("train: {epoch: 3}")
    command = [sys.executable, "-X", "importtime", *words, str(config)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 2
    assert "did you mean 'epochs'" in done.stderr
    assert "pydantic" in done.stderr
    assert not re.search(r"\| +(torch|pandas|cv2)$", done.stderr, re.MULTILINE)


def test_a_bug_keeps_its_traceback() -> None:
    def command() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(command, "")


def test_errors_can_be_pickled() -> None:
    error = ConfigError("a", expected="b", got="c", remedy="d")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (ConfigError, str(error))


def test_lists_and_hints() -> None:
    assert listing(range(8), 3) == "0, 1, 2 and 5 more"
    assert nearest("epoch", ["epochs", "lr"]) == "; did you mean 'epochs'?"
    assert nearest("zzz", ["epochs", "lr"]) == ""


def test_precision_on_a_cpu() -> None:
    cpu = torch.device("cpu")
    assert [resolve_precision(asked, cpu) for asked in ("auto", "fp32", "bf16")] == ["fp32", "fp32", "bf16"]
    with pytest.raises(ConfigError, match="needs a GPU"):
        resolve_precision("fp16", cpu)
    assert (loading_workers("auto", cpu), loading_workers(3, cpu)) == (0, 3)


def test_freed_memory_is_kept_unless_the_environment_sets_the_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: dict[int, int] = {}

    class Glibc:
        gnu_get_libc_version = "2.36"

        def mallopt(self, parameter: int, value: int) -> None:
            set_to[parameter] = value

    monkeypatch.setattr("ctypes.CDLL", lambda _: Glibc())
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    keep_freed_memory()
    assert set_to == {-3: 2**30}
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())  # another C library
    keep_freed_memory()


def test_the_environment_names_versions_and_seed() -> None:
    environment = describe_environment(seed=7)
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0]
    assert environment["seed"] == 7
