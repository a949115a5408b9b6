"""Folds side by side: a process for each, which share the GPUs or the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, TypeVar

import joblib
import torch

from pipeline import interrupts
from pipeline.device import keep_freed_memory, use_threads
from pipeline.errors import PipelineError, RunError
from pipeline.events import Event, Listener, Note
from pipeline.machine import refusal

PlanT = TypeVar("PlanT")
RunT = TypeVar("RunT")
Work = Callable[[PlanT, RunT, Any, Listener], None]

_START_METHOD = "spawn"  # CUDA does not survive a fork, not even of a process that has only counted the devices
_LOOK_SECONDS = 1.0  # between two checks for processes that have died


class Ended(NamedTuple):
    """The end of a fold's process: nothing, the user's mistake, our fault, or how it was killed."""

    mistake: PipelineError | None = None
    fault: str | None = None
    death: str | None = None

    def check(self, what: str, number: object) -> None:
        """Raise the mistake as it was raised there; RuntimeError for a fault of `what` `number`."""
        if self.mistake is not None:
            raise self.mistake
        if self.fault is not None:
            raise RuntimeError(f"{what} {number} failed:\n{self.fault}")


class _Running(NamedTuple):
    """A fold's process and its events. Each has its own pipe, so that one that is killed blocks no other."""

    process: BaseProcess
    events: Connection
    place: int


def run_side_by_side(
    task: Work[PlanT, RunT],
    plan: PlanT,
    run: RunT,
    folds: Sequence[int],
    *,
    processes: int,
    listen: Listener,
    what: str = "fold",
) -> None:
    """Call `task(plan, run, fold, listen)` for each fold, `processes` of them at a time, each in its own process.

    With several GPUs the processes take them in turn. Each gets an equal share of the cores, which is the same
    share when fewer folds than `processes` are left, so that a resumed run gives the same bytes.
    Events reach `listen` in this process. When one fold fails the others are stopped; what they had saved stays.
    Where a process is killed, the others go on to their end.

    Args:
        what: the word for the numbers in messages.

    Raises:
        PipelineError: the first fold's mistake, as it was raised there.
        RunError: a process was killed; all others have ended.
        RuntimeError: a fold failed by our own fault.
    """
    context = multiprocessing.get_context(_START_METHOD)
    waiting, running = list(folds), dict[int, _Running]()
    threads = max(1, joblib.cpu_count() // processes)
    free = list(range(processes))
    dead: list[str] = []
    try:
        while waiting or running:
            while waiting and free:
                fold = waiting.pop(0)
                running[fold] = _start(context, task, plan, run, fold, place=free.pop(0), threads=threads)
            fold, event = _next_event(running)
            if not isinstance(event, Ended):
                listen(event)
                continue
            free.append(_close(running.pop(fold)))
            event.check(what, fold)
            if event.death is not None:
                dead.append(f"the process of {what} {fold} {event.death}")
                listen(Note(f"{dead[-1]}; the others go on"))
    finally:
        for left in running.values():
            left.process.terminate()
        for left in running.values():
            _close(left)
    refuse_the_dead(dead)


def refuse_the_dead(dead: Sequence[str]) -> None:
    """Raise RunError if there are any: sentences about processes that were killed."""
    if dead:
        raise RunError(
            "; ".join(dead),
            remedy="the same command goes on from what was saved; if the machine's memory was full, train fewer side "
            "by side or lower train.workers",
        )


def _start(
    context: BaseContext,
    task: Work[PlanT, RunT],
    plan: PlanT,
    run: RunT,
    fold: int,
    *,
    place: int,
    threads: int,
) -> _Running:
    events, sender = context.Pipe(duplex=False)
    process: BaseProcess = context.Process(  # type: ignore[attr-defined]  # every context has it
        target=_run_one, args=(task, plan, run, fold, place, threads, sender)
    )
    with interrupts.blocked():  # while it imports
        process.start()
    sender.close()  # the process has its own
    return _Running(process, events, place)


def _close(ended: _Running) -> int:
    """Wait until the process has ended; returns its place."""
    ended.process.join()
    ended.events.close()
    return ended.place


def _next_event(running: Mapping[int, _Running]) -> tuple[int, Event | Ended]:
    """The next event of one of the processes, or its death."""
    lines: list[Any] = [one.events for one in running.values()]
    while True:
        dead = [
            fold for fold, one in running.items() if one.process.exitcode is not None
        ]  # before their last events are read
        ready = wait(lines, timeout=0 if dead else _LOOK_SECONDS)
        for fold, one in running.items():
            if one.events in ready:
                try:
                    return fold, one.events.recv()
                except (EOFError, OSError):  # OSError: killed while it sent an event
                    one.process.join()
                    return fold, Ended(death=_how(one.process))
        if dead:
            return dead[0], Ended(death=_how(running[dead[0]].process))


def _how(process: BaseProcess) -> str:
    code = process.exitcode or 0
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _run_one(
    task: Work[PlanT, RunT],
    plan: PlanT,
    run: RunT,
    fold: int,
    place: int,
    threads: int,
    sender: Connection,
) -> None:
    """The body of a fold's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])  # by which it ends this process
    use_threads(threads)
    keep_freed_memory()
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())

    def report(event: Event | Ended) -> None:
        try:
            sender.send(event)
        except OSError:
            os._exit(1)  # the parent was killed

    report(attempt(task, plan, run, fold, report))


def attempt(task: Work[PlanT, RunT], plan: PlanT, run: RunT, fold: Any, listen: Listener) -> Ended:
    """Call the task; an error is returned, for the process that raises it."""
    try:
        task(plan, run, fold, listen)
    except PipelineError as error:
        return Ended(mistake=error)
    except Exception as error:  # noqa: BLE001 (a fault of ours)
        refused = refusal(error)
        return Ended(fault=traceback.format_exc()) if refused is None else Ended(mistake=refused)
    return Ended()
