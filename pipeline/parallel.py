"""Folds side by side: one process each, every GPU in turn, or the CPU's cores shared out."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import NamedTuple, TypeVar

import torch

from pipeline.errors import PipelineError
from pipeline.threads import use_threads
from pipeline.training.progress import Event, Listener

PlanT = TypeVar("PlanT")
RunT = TypeVar("RunT")
FoldTask = Callable[[PlanT, RunT, int, Listener], None]


class _Ended(NamedTuple):
    """A fold's process is through, with the user's mistake or our fault if there was one."""

    fold: int
    mistake: PipelineError | None
    fault: str | None


def run_side_by_side(
    task: FoldTask[PlanT, RunT],
    plan: PlanT,
    run: RunT,
    folds: Sequence[int],
    *,
    processes: int,
    listen: Listener,
) -> None:
    """Call `task(plan, run, fold, listen)` for each fold, `processes` of them at a time, each in its own process.

    With several GPUs the processes take them in turn. Each gets an equal share of the cores, which is the same
    share when fewer folds than `processes` are left, so that a resumed run gives the same bytes.
    Events reach `listen` in this process. When one fold fails the others are stopped;
    what they had saved stays.

    Raises:
        PipelineError: the first fold's mistake, as it was raised there.
        RuntimeError: a process died or failed by our own fault.
    """
    context = multiprocessing.get_context("spawn")
    events: Queue[Event | _Ended] = context.Queue()
    waiting, running = list(folds), dict[int, BaseProcess]()
    threads = max(1, (os.cpu_count() or 1) // processes)
    free = list(range(processes))
    places: dict[int, int] = {}
    try:
        while waiting or running:
            while waiting and free:
                fold, place = waiting.pop(0), free.pop(0)
                arguments = (task, plan, run, fold, place, threads, events)
                process = context.Process(target=_run_one, args=arguments)
                process.start()
                running[fold], places[fold] = process, place
            event = _next_event(events, running)
            if not isinstance(event, _Ended):
                listen(event)
                continue
            running.pop(event.fold).join()
            free.append(places.pop(event.fold))
            if event.mistake is not None:
                raise event.mistake
            if event.fault is not None:
                raise RuntimeError(f"fold {event.fold} failed:\n{event.fault}")
    finally:
        for left in running.values():
            left.terminate()
        for left in running.values():
            left.join()


def _next_event(events: Queue[Event | _Ended], running: dict[int, BaseProcess]) -> Event | _Ended:
    while True:
        for fold, process in running.items():
            if process.exitcode not in (None, 0):
                return _Ended(fold, None, f"its process ended with exit code {process.exitcode}")
        with contextlib.suppress(queue.Empty):
            return events.get(timeout=1.0)


def _run_one(
    task: FoldTask[PlanT, RunT],
    plan: PlanT,
    run: RunT,
    fold: int,
    place: int,
    threads: int,
    events: Queue[Event | _Ended],
) -> None:
    """The body of a fold's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    use_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())
    parent = multiprocessing.parent_process()

    def report(event: Event) -> None:
        if parent is not None and not parent.is_alive():
            os._exit(1)  # the parent was killed: nobody would see this fold's end
        events.put(event)

    mistake, fault = None, None
    try:
        task(plan, run, fold, report)
    except PipelineError as error:
        mistake = error
    except Exception:  # noqa: BLE001 (a fault of ours is carried to the parent, which raises it)
        fault = traceback.format_exc()
    events.put(_Ended(fold, mistake, fault))
