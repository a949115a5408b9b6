"""Who a process is among several: its part of the items, its random numbers, its share of the cores."""

from __future__ import annotations

import cv2
import pytest
import torch

from pipeline import processes
from pipeline.device import share_cores
from pipeline.errors import ConfigError
from pipeline.seeds import stable_seed
from pipeline.training.fold import step_seed


@pytest.mark.parametrize(("count", "images"), [(1, 5), (2, 5), (3, 8), (4, 4)])
def test_the_parts_of_all_processes_are_the_whole(count: int, images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(count))
    parts = []
    for rank in range(count):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(list(processes.part_of(range(images))))
    assert sorted(item for part in parts for item in part) == list(range(images))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_each_process_draws_for_itself_and_the_first_as_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    seeds = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        seeds.append(step_seed(7, 1, 20))
    assert seeds[0] == stable_seed(7, 1, "step", 20)
    assert len(set(seeds)) == 3


def test_an_environment_that_no_launcher_made_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ConfigError, match="WORLD_SIZE is no number"):
        processes.count()


def test_each_process_computes_with_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    monkeypatch.setattr("joblib.cpu_count", lambda: 6)
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
