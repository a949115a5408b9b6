"""Commands and functions in several processes at once, as a launcher would start them."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from pipeline import processes
from pipeline.training.distributed import joined
from tests.conftest import PROJECT

T = TypeVar("T")
SECONDS = 100


class Ended(NamedTuple):
    """How one of the processes ended."""

    code: int
    out: str
    err: str


def environments(count: int = 2) -> list[dict[str, str]]:
    """What a launcher tells each process; no GPU is seen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common |= {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    common |= {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # as run_cv.py sets it before it imports torch
    return [{**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def start(*words: str | Path, environment: Mapping[str, str], folder: Path | None = None) -> subprocess.Popen[str]:
    """`python WORDS` in the folder of the test, or in `folder`."""
    command, pipe = [sys.executable, *map(str, words)], subprocess.PIPE
    return subprocess.Popen(
        command,
        env=dict(environment),
        cwd=folder,
        stdout=pipe,
        stderr=pipe,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    )


def end(*started: subprocess.Popen[str]) -> list[Ended]:
    """Wait for all of them."""
    ended = []
    try:
        for process in started:
            out, err = process.communicate(timeout=SECONDS)
            ended.append(Ended(process.returncode, out, err))
    finally:
        for process in started[len(ended) :]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it forked, too
            process.communicate()
    return ended


def fork_together(program: str, *words: str | Path, folder: Path, before: str = "import torch") -> list[Ended]:
    """`program` with `words` as its arguments in two processes, how each of them ended; its files go to `folder`.

    As under the notebook launcher, one process imports what is wanted `before` and forks: that costs half.
    """
    (launcher,) = end(start("-c", FORK, before, program, folder, *words, environment=environments()[0]))
    assert launcher.code == 0, launcher.err
    said = [[(folder / f"{name}{rank}").read_text(encoding="utf-8") for name in ("out", "err")] for rank in range(2)]
    return [Ended(code, *each) for code, each in zip(json.loads(launcher.out), said, strict=True)]


FORK = """
import json, os, sys
before, program, folder = sys.argv[1:4]
sys.argv[1:4] = []
exec(before)
started = []
for rank in range(int(os.environ["WORLD_SIZE"])):
    started.append(os.fork())
    if started[-1] == 0:
        os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{folder}/{name}{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        exec(program)
        sys.exit()
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in started]))
"""


def cv_together(*words: str | Path, folder: Path) -> list[Ended]:
    """`run_cv.py WORDS` in two processes; how each of them ended. What they say lies in `folder`, too."""
    program = "run_cv.run(*sys.argv[1:])"
    return fork_together(
        program, *words, folder=folder, before="import run_cv, pipeline.run.cv, pipeline.search.search"
    )


def call_together(task: Callable[[], T], folder: Path) -> list[T]:
    """What `task`, a function of a module, gives in each of two processes that have joined."""
    before = f"from tests.together import answer; from {task.__module__} import {task.__name__} as task"
    for ended in fork_together(f"answer(task, {str(folder)!r})", folder=folder, before=before):
        assert ended.code == 0, ended.err
    return [pickle.loads((folder / f"answer{rank}.pickle").read_bytes()) for rank in range(2)]


def answer(task: Callable[[], Any], folder: str) -> None:
    """The body of a process of `call_together`."""
    torch.set_num_threads(1)
    with joined():
        value = task()
    Path(folder, f"answer{processes.rank()}.pickle").write_bytes(pickle.dumps(value))
