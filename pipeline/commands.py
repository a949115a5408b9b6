"""Exit codes of the commands, and the message to the user when one ends early."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Protocol

from pipeline import processes
from pipeline.errors import PipelineError

DONE, USERS_MISTAKE, INTERRUPTED = 0, 2, 130


def run_command(main: Callable[[], None], command: str) -> int:
    """Call `main` and return the exit code: 0 done, 2 a mistake of the user, 130 interrupted.

    A mistake is printed as one message on stderr, without a traceback. SIGTERM acts like Ctrl-C: the message of the
    KeyboardInterrupt is printed, or if it is empty, how to start `command` again. A bug is not caught: Python prints
    its traceback and exits with 1. Several processes of one command return the same code, and one of them prints.
    """
    signal.signal(signal.SIGTERM, processes.interrupt)
    try:
        processes.join()
        with processes.ending_together():
            main()
    except PipelineError as error:
        if processes.tells_mistakes():
            print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201 (a command writes to its terminal)
        return USERS_MISTAKE
    except KeyboardInterrupt as interrupt:
        if processes.is_first():
            message = str(interrupt) or f"nothing is finished; to start again:\n  {command}"
            print(f"\ninterrupted: {message}", file=sys.stderr, flush=True)  # noqa: T201
        return INTERRUPTED
    finally:
        processes.leave()
    return DONE


class RunState(Protocol):
    """An object that knows whether the run folder is open."""

    run_opened: bool


@contextlib.contextmanager
def explained_interruption(progress: RunState, command: str, *, debug: bool) -> Iterator[None]:
    """Add a message to a KeyboardInterrupt of a training: what is saved, and the command that continues.

    The command keeps its `--fresh` only while the run folder is not open, because nothing is deleted before.
    """
    try:
        yield
    except KeyboardInterrupt:
        if debug:
            kept = "nothing is kept of a --debug run"
        elif progress.run_opened:
            kept = "the state is saved after every epoch and every train.checkpoint_minutes"
            command = command.replace(" --fresh", "")
        else:
            kept = "the training had not begun"
        raise KeyboardInterrupt(f"{kept}; to go on:\n  {command}") from None
