"""Commands and functions in several processes at once, as a launcher would start them."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from pipeline import processes
from tests.conftest import PROJECT

T = TypeVar("T")
SECONDS = 240


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
    return [{**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def start(*words: str | Path, environment: Mapping[str, str], folder: Path | None = None) -> subprocess.Popen[str]:
    """`python WORDS` in the folder of the test, or in `folder`."""
    command, pipe = [sys.executable, *map(str, words)], subprocess.PIPE
    return subprocess.Popen(
        command, env=dict(environment), cwd=folder, stdout=pipe, stderr=pipe, text=True, encoding="utf-8"
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
            process.kill()
            process.communicate()
    return ended


def cv_together(*words: str | Path) -> list[Ended]:
    """`run_cv.py WORDS` in two processes; how each of them ended."""
    return end(*[start(PROJECT / "run_cv.py", *words, environment=each) for each in environments()])


def call_together(task: Callable[[], T], folder: Path) -> list[T]:
    """What `task`, a function of a module, gives in each of two processes that have joined."""
    program = f"from tests.together import answer; from {task.__module__} import {task.__name__} as task; answer(task)"
    files = [folder / f"answer{rank}.pickle" for rank in range(2)]
    started = [
        start("-c", program, environment={**each, "ANSWER": str(file)})
        for each, file in zip(environments(), files, strict=True)
    ]
    for ended in end(*started):
        assert ended.code == 0, ended.err
    return [pickle.loads(file.read_bytes()) for file in files]


def answer(task: Callable[[], Any]) -> None:
    """The body of a process of `call_together`."""
    torch.set_num_threads(1)
    processes.join()
    value = task()
    Path(os.environ["ANSWER"]).write_bytes(pickle.dumps(value))
    processes.leave()
