"""Exit codes and messages of a command, and what its start needs: device, precision, environment."""

from __future__ import annotations

import os
import pickle
import signal
import time

import pytest
import torch

from pipeline.commands import run_command
from pipeline.device import keep_freed_memory, loading_workers, resolve_precision
from pipeline.errors import ConfigError, listing, nearest
from pipeline.run.environment import describe_environment


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
    try:
        for command in (interrupted, terminated):
            assert run_command(command, "python run_cv.py x") == 130
            assert "python run_cv.py x" in capsys.readouterr().err
    finally:
        signal.signal(signal.SIGTERM, before)


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
