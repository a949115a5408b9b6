"""What several processes exchange, and how they end together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline import processes
from pipeline.errors import ConfigError
from pipeline.seeds import stable_seed
from pipeline.training.fold import step_seed
from tests.together import call_together, end, environments, start


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


def test_all_processes_have_what_was_exchanged(tmp_path: Path) -> None:
    answers = call_together(exchange, tmp_path)
    assert [answer.pop("rank") for answer in answers] == [0, 1]
    assert [answer.pop("made") for answer in answers] == [[0], []]
    assert answers[0] == answers[1]
    assert answers[0] == {
        "gathered": ["of 0", "of 1"],
        "first": "from 0",
        "total": (3.0, 1.0),
        "says": [True, False],
        "loss": 1.5,
        "gradients": [3.0, 3.0, *[21.0] * 6],
        "mean": [0.0, 0.0],
    }


def test_a_count_of_processes_without_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"no RANK, LOCAL_RANK, MASTER_ADDR(.|\n)*unset WORLD_SIZE"):
        processes.join()
    assert processes.count() == 1


FAULTY = """
import sys
from pipeline import processes
from pipeline.commands import run_command

def command():
    if processes.rank() == 1:
        raise ZeroDivisionError("a fault of ours")
    processes.from_first(lambda: None)

sys.exit(run_command(command, after_interrupt=""))
"""


def test_a_fault_of_ours_in_one_process_is_told_there_and_ends_the_others() -> None:
    first, second = end(*[start("-c", FAULTY, environment=each) for each in environments()])
    assert (first.code, second.code) == (1, 1)
    assert first.out == first.err == ""
    assert second.err.endswith("ZeroDivisionError: a fault of ours\n")
