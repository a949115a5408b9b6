"""Folds side by side: events arrive, mistakes keep their kind, and a dead process is noticed."""

from __future__ import annotations

import os
import time

import cv2
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.parallel import run_side_by_side
from pipeline.training.progress import Event, FoldDone, Listener, Note
from tests.conftest import PROJECT


def _task(plan: str, run: None, fold: int, listen: Listener) -> None:
    if plan == "threads":
        listen(Note(f"{torch.get_num_threads()} {cv2.getNumThreads()}"))
    if plan == "mistake" and fold == 1:
        raise ConfigError("wrong", remedy="mend it")
    if plan == "fault" and fold == 1:
        raise ZeroDivisionError
    if plan == "death" and fold == 1:
        os._exit(9)
    if plan not in ("fine", "threads") and fold == 0:
        for _ in range(600):  # a busy neighbour must not hide the failure
            listen(FoldDone(0, resumed=True))
            time.sleep(0.1)
    listen(FoldDone(fold, resumed=False))


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))


def test_every_fold_runs_and_its_events_arrive() -> None:
    seen: list[Event] = []
    run_side_by_side(_task, "fine", None, [0, 1, 2], processes=2, listen=seen.append)
    assert sorted(seen) == [FoldDone(fold, resumed=False) for fold in (0, 1, 2)]


def test_folds_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    seen: list[Event] = []
    run_side_by_side(_task, "threads", None, [0], processes=2, listen=seen.append)
    assert seen[0] == Note("3 3")


@pytest.mark.parametrize(
    ("plan", "kind", "message"),
    [
        ("mistake", ConfigError, "mend it"),
        ("fault", RuntimeError, "ZeroDivisionError"),
        ("death", RuntimeError, "exit code 9"),
    ],
)
def test_a_failing_fold_ends_the_run_at_once(plan: str, kind: type[Exception], message: str) -> None:
    begin = time.monotonic()
    with pytest.raises(kind, match=message):
        run_side_by_side(_task, plan, None, [0, 1], processes=2, listen=lambda _: None)
    assert time.monotonic() - begin < 50
