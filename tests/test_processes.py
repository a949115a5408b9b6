"""What several processes exchange, and how they end together."""

from __future__ import annotations

import os
import pickle
from typing import Any, NamedTuple

import cv2
import pytest
import torch
from torch import nn

from pipeline import processes
from pipeline.device import share_cores
from pipeline.errors import ConfigError, PipelineError
from pipeline.seeds import stable_seed
from pipeline.training.fold import step_seed
from tests.together import Ended, end, environments, start


@pytest.mark.parametrize(("count", "images"), [(1, 5), (2, 5), (3, 8), (4, 4)])
def test_the_parts_of_all_processes_are_the_whole(count: int, images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.processes.group.group.count", count)
    parts = []
    for rank in range(count):
        monkeypatch.setattr("pipeline.processes.group.group.rank", rank)
        parts.append(list(processes.part_of(range(images))))
    assert sorted(item for part in parts for item in part) == list(range(images))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_each_process_draws_for_itself_and_the_first_as_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    for rank in range(3):
        monkeypatch.setattr("pipeline.processes.group.group.rank", rank)
        seeds.append(step_seed(7, 1, 20))
    assert seeds[0] == stable_seed(7, 1, "step", 20)
    assert len(set(seeds)) == 3


def exchange() -> dict[str, Any]:
    rank = processes.rank()
    norm = nn.BatchNorm1d(2)
    norm.running_mean = torch.full((2,), float(rank))
    big = nn.Parameter(torch.zeros(5_000_000))
    small = nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))
    big.grad, small.grad = torch.full_like(big, 1.0 + rank), torch.full_like(small, 10.0 + rank)
    made: list[int] = []

    def make() -> str:
        made.append(rank)
        return f"from {rank}"

    processes.share_buffers(norm)
    return {
        "rank": rank,
        "gathered": processes.gather(f"of {rank}"),
        "first": processes.from_first(make),
        "made": made,
        "total": processes.total(1 + rank, 0.5),
        "says": [processes.first_says(rank == 0), processes.first_says(rank == 1)],
        "loss": processes.total_gradient(0.25 + rank, [big, nn.Parameter(torch.zeros(1)), small]),
        "gradients": [*map(float, big.grad.aminmax()), *small.grad.flatten().tolist()],
        "mean": norm.running_mean.tolist(),
    }


def test_a_count_of_processes_without_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"no RANK, LOCAL_RANK, MASTER_ADDR(.|\n)*unset WORLD_SIZE"):
        processes.join()
    assert processes.count() == 1


def test_processes_that_cannot_speak_with_each_other_are_told_so_when_they_meet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environments()[1].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("pipeline.processes.start.PartialState", lambda cpu: None)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("torch.distributed.new_group", lambda **_: None)

    def fail(values: torch.Tensor) -> None:
        raise RuntimeError("NCCL error in: NCCLUtils.cpp:94, unhandled system error\nLast error: no memory")

    monkeypatch.setattr("torch.distributed.all_reduce", fail)
    try:
        with pytest.raises(PipelineError, match=r"2 processes cannot speak(.|\n)*unhandled system(.|\n)*NCCL_DEBUG"):
            processes.join()
        assert processes.tells_mistakes()
    finally:
        processes.leave()
    assert processes.count() == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[pair.cc:561] Connection closed by peer [127.0.0.1]:1167", "another of the 2 processes ended"),
        ("NCCL error\nremote process exited or there was a network error", "another of the 2 processes ended"),
        ("NCCL error in: x.cpp:1, unhandled cuda error", "the 2 processes could not exchange their numbers"),
    ],
)
def test_a_transport_that_fails_is_told_from_a_process_that_is_gone(
    text: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr("pipeline.processes.group.group.count", 2)
    monkeypatch.setattr("torch.distributed.all_reduce", fail)
    try:
        with pytest.raises(PipelineError, match=told):
            processes.total(1.0)
    finally:
        processes.leave()


def test_each_process_computes_with_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        share_cores(2)
        assert cv2.getNumThreads() == torch.get_num_threads() == before[0]  # torch has read it when it was loaded
        monkeypatch.delenv("OMP_NUM_THREADS")
        share_cores(2)
        assert cv2.getNumThreads() == torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


FAULTY = """
import os, pickle, sys
from pathlib import Path
import cv2
import torch
from pipeline import processes
from pipeline.commands import run_command
from tests.test_processes import exchange

def command():
    threads = torch.get_num_threads(), cv2.getNumThreads()
    Path(f"answer{processes.rank()}.pickle").write_bytes(pickle.dumps({"threads": threads, **exchange()}))
    if processes.rank() == 1:
        raise ZeroDivisionError("a fault of ours")
    processes.from_first(lambda: None)

sys.exit(run_command(command, ""))
"""


class Faulty(NamedTuple):
    ended: list[Ended]
    answers: list[dict[str, Any]]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Faulty:
    """Two processes that exchange things, then one fails; nobody says how many threads they may take."""
    folder = tmp_path_factory.mktemp("faulty")
    free = [{key: value for key, value in each.items() if key != "OMP_NUM_THREADS"} for each in environments()]
    ended = end(*[start("-c", FAULTY, environment=each, folder=folder) for each in free])
    answers = [folder / f"answer{rank}.pickle" for rank in range(2)]
    return Faulty(ended, [pickle.loads(answer.read_bytes()) for answer in answers])


def test_all_processes_have_what_was_exchanged(faulty: Faulty) -> None:
    first, second = faulty.answers
    assert (first["rank"], first["made"]) == (0, [0])
    assert (second["rank"], second["made"]) == (1, [])
    threads = max(1, (os.cpu_count() or 1) // 2)
    for answer in (first, second):
        assert {key: value for key, value in answer.items() if key not in ("rank", "made")} == {
            "threads": (threads, threads),
            "gathered": ["of 0", "of 1"],
            "first": "from 0",
            "total": (3.0, 1.0),
            "says": [True, False],
            "loss": 1.5,
            "gradients": [3.0, 3.0, *[21.0] * 6],
            "mean": [0.0, 0.0],
        }


def test_a_fault_of_ours_in_one_process_is_told_there_and_ends_the_others(faulty: Faulty) -> None:
    first, second = faulty.ended
    assert (first.code, second.code) == (1, 1)
    assert first.out == first.err == ""
    assert second.err.endswith("ZeroDivisionError: a fault of ours\n")
