"""Ctrl-C and SIGTERM: the first one stops the command where it can stop, a second Ctrl-C ends it at once."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from pipeline import processes

EXIT_CODE = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SECOND_AFTER = 0.3  # seconds: a terminal and a wrapper may both send the first one


@dataclass
class _State:
    explain: Callable[[], str] = lambda: "the command was over"
    received: float | None = None  # when the first signal came
    deferred: int = 0


_state = _State(deferred=1)  # outside of `caught` a signal only sets the flag


@contextlib.contextmanager
def caught(explain: Callable[[], str]) -> Iterator[None]:
    """In the block, signals are handled: they set a flag, and in a block of `raising` the first one raises.

    Args:
        explain: returns what is saved and how to continue; `explained_by` replaces it.
    """
    global _state
    outer, _state = _state, _State(explain, _state.received, deferred=1)
    hook, logged = sys.unraisablehook, logging.root.manager.disable
    sys.unraisablehook = lambda fault: None if _comes_again(fault.exc_value) else hook(fault)
    before = [signal.signal(number, _handle) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)
        sys.unraisablehook = hook
        logging.disable(logged)
        _state = outer


def explained_by(explain: Callable[[], str]) -> None:
    """Replace the message of an interruption."""
    _state.explain = explain


def message() -> str:
    """The message of an interruption: the saved state, and the command that continues."""
    return f"\ninterrupted: {_state.explain()}"


def received() -> bool:
    """Whether a signal came."""
    return _state.received is not None


def check() -> None:
    """Raise KeyboardInterrupt if a signal came: where a library swallowed the first one, this raises it again."""
    if received() and not _state.deferred:
        raise KeyboardInterrupt


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """In the block a signal raises KeyboardInterrupt; one that came before, or was swallowed, at its begin or end."""
    _state.deferred -= 1
    try:
        check()
        yield
        check()
    finally:
        _state.deferred += 1


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """In the block a signal only sets the flag; KeyboardInterrupt is raised at its end."""
    _state.deferred += 1
    try:
        yield
    finally:
        _state.deferred -= 1
    check()


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Processes that are started in the block never receive the signals: this process ends them."""
    with deferred():  # another thread of this process may receive them
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hush() -> None:
    """From now on a signal does nothing to one of several processes: it ends with the others."""
    if _state.received is None:
        _state.received = time.monotonic()


def keep() -> None:
    """Outside of `caught` a signal sets the flag from now on: before a command, and once it is over."""
    for number in _SIGNALS:
        signal.signal(number, _handle)


def end_children(*, all_of_them: bool = False) -> None:
    """Kill the processes that load images, which ignore signals; or all that multiprocessing started here."""
    import multiprocessing

    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch raises in its handler when a loading process dies
    children = [child for child in multiprocessing.active_children() if child.daemon or all_of_them]
    for child in children:
        child.kill()
    for child in children:
        child.join()
    signal.signal(signal.SIGCHLD, before)


def _comes_again(error: BaseException | None) -> bool:
    """Whether a library swallowed what a handler of signals raised: `check` raises it again, or torch does."""
    return isinstance(error, KeyboardInterrupt) or str(error).startswith("DataLoader worker (pid")


def _handle(number: int, _frame: FrameType | None) -> None:
    if _state.received is None:
        _state.received = time.monotonic()
        logging.disable()  # libraries log what this raises in them
        if not _state.deferred:
            raise KeyboardInterrupt
    # A launcher of several processes passes on what the terminal has sent to each of them already.
    elif number == signal.SIGINT and processes.count() == 1 and time.monotonic() > _state.received + _SECOND_AFTER:
        end_children(all_of_them=True)
        os.write(2, f"{message()}\n".encode())
        os._exit(EXIT_CODE)
