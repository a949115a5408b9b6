"""Folds, seed models and workers of a search as tasks of Ray, on all machines of its cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import interrupts
from pipeline.device import keep_freed_memory, use_threads
from pipeline.errors import ConfigError, RunError
from pipeline.events import Event, Listener, Mailbox, Note
from pipeline.files import temporary_name, write_text
from pipeline.run.folder import RunFolder
from pipeline.run.parallel_folds import Ended, PlanT, Work, attempt, refuse_the_dead
from pipeline.run.plan import Plan

_RETRIES = 3  # of a task whose process or machine was lost
_LOOK_SECONDS = 0.5  # between two looks for events
_ADDRESS_SECONDS = 10.0  # for the address to answer
_ANSWER_SECONDS = 180.0  # for each machine, which imports the pipeline, to answer
_PLACE_SECONDS = 600.0  # in which no task finds room on any machine
_GRACE_SECONDS = 15.0  # for cancelled tasks to save their state


class _Shared(NamedTuple):
    """Files that every machine must see under the same path."""

    folder: str  # the command's working folder
    probe: str  # a small file in the run folder
    content: str
    image: str  # one of the training images

    def fault(self) -> str | None:
        """The reason that this machine does not see them; None if it does. Goes to the working folder."""
        try:
            os.chdir(self.folder)
            if Path(self.probe).read_text(encoding="utf-8") != self.content:
                return f"{self.probe} has another content on {socket.gethostname()}"
            Path(self.image).open("rb").close()
        except OSError as error:
            return f"{error.filename}: {error.strerror} on {socket.gethostname()}"
        return None


def run_on_ray(
    task: Work[PlanT, Any],
    job: PlanT,
    run: RunFolder,
    numbers: Sequence[Any],
    *,
    plan: Plan,
    listen: Listener,
    what: str = "fold",
) -> None:
    """Call `task(job, run, number, listen)` for each number as a task of Ray, on the machines with room for it.

    A task has one GPU and its share of the machine's cores; where no machine has a GPU, a machine has room for
    `train.parallel_folds` tasks. A task whose process or machine was lost begins again elsewhere, three times at most,
    and goes on from the state that it saved. When one raises an error, or this command is interrupted, the others save
    their state and end.

    Args:
        task: a function of a module; its arguments can be pickled.
        job: its first argument.
        run: its folder is on a file system that all machines see, under one path, as are the images.
        numbers: one for each task.
        plan: names the cluster and an image.
        listen: receives the events of all tasks, in this process.
        what: the word for the numbers in messages.

    Raises:
        ConfigError: there is no cluster at the address.
        PipelineError: the first task's mistake, as it was raised there.
        RunError: a machine does not see the files, no machine has room, or a task was lost too often.
        RuntimeError: a task failed by our own fault.
    """
    train = plan.config.train
    with _connected(train.ray_address) as ray, _shared_files(plan, run) as shared:
        _check_machines(ray, shared)
        cpus, gpus = _room(ray.nodes(), train.parallel_folds)
        here = _on(ray.get_runtime_context().get_node_id())  # the machine that must live anyway
        events = ray.remote(num_cpus=0)(Mailbox).options(scheduling_strategy=here).remote()
        packed = ray.put(pickle.dumps((task, job, run)))  # unpickled in the working folder
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0, max_calls=1)(_work)

        def begin(number: Any) -> Any:
            return remote.remote(packed, number, shared, cpus, events)

        tasks = {begin(number): number for number in numbers}
        try:
            _attend(ray, tasks, begin, events, listen, what)
        finally:
            _cancel(ray, list(tasks))


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected to the cluster at `address` until the end of the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to Ray's makers
    import ray

    address = address or os.environ.get("RAY_ADDRESS")
    handler = signal.getsignal(signal.SIGTERM)
    try:
        host, _, port = (address or "").rpartition(":")
        if host and port.isdecimal():  # Ray itself tries for minutes
            socket.create_connection((host, int(port)), timeout=_ADDRESS_SECONDS).close()
        with interrupts.blocked():  # a local Ray ends with this process, not by its signals
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            signal.signal(signal.SIGTERM, handler)  # Ray sets its own
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"train.executor=ray: Ray does not answer at {address or 'this machine'}",
            got=str(error).splitlines()[0],
            remedy="start it with: ray start --head; then set train.ray_address to the address that this prints, "
            "or to null for a Ray of this command alone",
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _shared_files(plan: Plan, run: RunFolder) -> Iterator[_Shared]:
    """Write the probe; it is deleted at the end of the block."""
    probe, content = run.path.absolute() / temporary_name("ray"), f"{socket.gethostname()} {time.time()}"
    write_text(probe, content)
    try:
        yield _Shared(str(Path.cwd()), str(probe), content, str(plan.table.paths[0][0]))
    finally:
        probe.unlink(missing_ok=True)


def _check_machines(ray: Any, shared: _Shared) -> None:
    """Raise RunError if a machine of the cluster does not see the files, or cannot import the pipeline."""
    look = ray.remote(num_cpus=0, max_retries=0)(_Shared.fault)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    looks = [look.options(scheduling_strategy=_on(node)).remote(shared) for node in nodes]
    for answer in looks:
        try:
            _refuse(ray.get(answer, timeout=_ANSWER_SECONDS))
        except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
            continue  # this machine has just left the cluster
        except ray.exceptions.RayError as error:
            raise RunError(
                "a machine of the Ray cluster cannot run the pipeline",
                got=str(error).strip().splitlines()[-1],
                remedy="install the same versions of Python, Ray and this project on every machine",
            ) from None


def _refuse(fault: str | None) -> None:
    if fault is not None:
        raise RunError(
            "a machine of the Ray cluster does not see the files of the run",
            expected="the working folder, runs/ and the images at the same path on every machine",
            got=fault,
            remedy="start the command in a folder on a file system that all machines share",
        )


def _on(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _room(nodes: Sequence[Mapping[str, Any]], beside: int) -> tuple[int, int]:
    """The CPUs and GPUs of a task, by the smallest machine that trains."""
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = int(any(machine.get("GPU", 0) >= 1 for machine in machines))
    able = [machine for machine in machines if machine.get("GPU" if gpus else "CPU", 0) >= 1]
    shares = [int(machine.get("CPU", 1) // (machine["GPU"] if gpus else beside)) for machine in able]
    return max(1, min(shares, default=1)), gpus


def _work(packed: bytes, number: Any, shared: _Shared, threads: int, events: Any) -> Ended:
    """The body of a task, in a process of its own."""
    import ray

    use_threads(threads)
    keep_freed_memory()

    def report(event: Event) -> None:
        interrupts.check()
        events.put.remote(number, event)  # a task that waits for an answer gives its cores to another one

    def call(*_: object) -> None:
        _refuse(shared.fault())  # this machine may have joined after the check
        task, job, run = pickle.loads(packed)  # noqa: S301 (from our own command)
        with interrupts.raising():
            task(job, run, number, report)

    events.put.remote(number, None)
    with interrupts.caught(str):  # Ray cancels a task as Ctrl-C would
        ended = attempt(call, None, None, number, report)
    ray.get(events.put.remote(number, None), timeout=_ANSWER_SECONDS)  # all events before it have arrived
    return ended


def _attend(
    ray: Any, tasks: dict[Any, Any], begin: Callable[[Any], Any], events: Any, listen: Listener, what: str
) -> None:
    """Pass the events on until all tasks have ended; `tasks`, by reference, keeps those that have not."""
    lost, running, dead, placed = Counter[Any](), set[Any](), list[str](), time.monotonic()
    while tasks:
        done, _ = ray.wait(list(tasks), timeout=_LOOK_SECONDS)
        interrupts.check()
        for number, event in ray.get(events.take.remote(), timeout=_ANSWER_SECONDS):
            running.add(number)
            if event is not None:
                listen(event)
        for reference in done:
            number = tasks.pop(reference)
            running.discard(number)
            try:
                ended = ray.get(reference)
            except ray.exceptions.RayTaskError:
                raise  # a fault of ours
            except ray.exceptions.RayError:
                lost[number] += 1
                if lost[number] > _RETRIES:
                    dead.append(f"{what} {number} was lost {lost[number]} times with its process or machine")
                    listen(Note(f"{dead[-1]}; the others go on"))
                else:
                    sentence = f"{what} {number} was lost with its process or machine, and goes on from its last state"
                    listen(Note(f"{sentence} (try {lost[number] + 1} of {_RETRIES + 1})"))
                    tasks[begin(number)] = number
            else:
                ended.check(what, number)
        placed = time.monotonic() if running else placed
        if time.monotonic() - placed > _PLACE_SECONDS:
            raise RunError(
                f"no machine of the Ray cluster had room for a {what} within {_PLACE_SECONDS / 60:.0f} minutes",
                got=f"free: {ray.available_resources()}",
                remedy="see what runs there with: ray status; then start the same command again",
            )
    refuse_the_dead(dead)


def _cancel(ray: Any, left: list[Any]) -> None:
    """End these tasks; first they may save their state."""
    for reference in left:
        ray.cancel(reference)
    if left:
        _, left = ray.wait(left, num_returns=len(left), timeout=_GRACE_SECONDS)
    for reference in left:
        ray.cancel(reference, force=True)
