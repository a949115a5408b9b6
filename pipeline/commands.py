"""Exit codes of the commands, and the message to the user when one ends early. Imports no library: it is first."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn, Protocol

from pipeline import interrupts, processes
from pipeline.errors import PipelineError, printable
from pipeline.machine import refusal, require_handles

DONE, USERS_MISTAKE, INTERRUPTED = 0, 2, interrupts.EXIT_CODE


def run_command(main: Callable[[], None], command: str) -> int:
    """Call `main` and return the exit code: 0 done, 2 a mistake of the user, 130 interrupted.

    A mistake is printed as one message on stderr, without a traceback; so is a refusal of the machine, such as a full
    disk. After Ctrl-C or SIGTERM the message says what is saved and how to continue, or start, `command`. A bug is not
    caught: Python prints its traceback and exits with 1. Several processes of one command return the same code, and one
    of them prints.
    """
    with interrupts.caught(lambda: f"nothing is finished; to start again:\n  {command}"):
        try:
            with interrupts.raising():
                require_handles()
                main()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or (interrupts.received() and processes.count() == 1):
                interrupts.end_children()
                if processes.is_first():
                    print(interrupts.message(), file=sys.stderr, flush=True)  # noqa: T201 (a command's terminal)
                return INTERRUPTED
            mistake = error if isinstance(error, PipelineError) else refusal(error)
            if mistake is None:
                raise
            if processes.local_rank() == 0 if mistake.printed_here is None else mistake.printed_here:
                print(f"error: {printable(str(mistake))}", file=sys.stderr, flush=True)  # noqa: T201
            return USERS_MISTAKE
    return DONE


def end_process(command: Callable[[], int]) -> NoReturn:
    """End this process with the exit code of `command`; a signal before it interrupts it, one after it does nothing."""
    interrupts.keep()  # `caught` brings this back at its end
    sys.exit(command())


class RunState(Protocol):
    """An object that knows whether the run folder is open."""

    run_opened: bool


def explain_interruption(progress: RunState, command: str, *, debug: bool) -> None:
    """From now on the message of an interruption says what a training saved, and the command that continues it.

    The command keeps its `--fresh` only while the run folder is not open, because nothing is deleted before.
    """

    def explain() -> str:
        if debug:
            return f"nothing is kept of a --debug run; to go on:\n  {command}"
        if progress.run_opened:
            kept = "the state is saved after every epoch and every train.checkpoint_minutes"
            return f"{kept}; to go on:\n  {command.replace(' --fresh', '')}"
        return f"the training had not begun; to go on:\n  {command}"

    interrupts.explained_by(explain)
