"""What the two commands have in common: how an ending is told to a person and to the shell."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from pipeline import processes
from pipeline.errors import PipelineError

DONE, OUR_FAULT, USERS_MISTAKE, INTERRUPTED = 0, 1, 2, 130


def run_command(command: Callable[[], None], *, after_interrupt: str | Callable[[], str]) -> int:
    """Call `command` and give its exit code: 0 done, 2 a mistake of the user's, 130 interrupted.

    `after_interrupt` says what is kept and how to go on; as a function it is asked when that has happened.
    A mistake is one message on stderr, without a traceback. SIGTERM ends like Ctrl-C. Our own fault is
    not caught: Python prints it and exits with 1. Started in several processes, all of them end alike and one
    of them speaks.
    """
    signal.signal(signal.SIGTERM, processes.interrupt)
    try:
        processes.join()
        with processes.ending_together():
            command()
    except PipelineError as error:
        if processes.tells_mistakes():
            print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201 (a command speaks to its terminal)
        return USERS_MISTAKE
    except KeyboardInterrupt:
        if processes.is_first():
            told = after_interrupt if isinstance(after_interrupt, str) else after_interrupt()
            print(f"\ninterrupted: {told}", file=sys.stderr, flush=True)  # noqa: T201
        return INTERRUPTED
    finally:
        processes.leave()
    return DONE
