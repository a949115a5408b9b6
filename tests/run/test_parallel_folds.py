"""Folds side by side: events arrive, mistakes keep their kind, and a dead process is noticed."""

from __future__ import annotations

import os
import time

import cv2
import pytest
import torch

from pipeline.errors import ConfigError, RunError
from pipeline.events import Event, FoldFinished, Listener, Note
from pipeline.run.parallel_folds import run_side_by_side


def _task(plan: str, run: None, fold: int, listen: Listener) -> None:
    if plan == "threads":
        listen(Note(f"{torch.get_num_threads()} {cv2.getNumThreads()}"))
    if plan == "mistake" and fold == 1:
        raise ConfigError("wrong", remedy="mend it")
    if plan == "fault" and fold == 1:
        raise ZeroDivisionError
    if plan == "death" and fold == 1:
        listen(Note("last words"))
        os._exit(9)
    if plan in ("mistake", "fault") and fold == 0:
        for _ in range(600):  # a busy neighbour must not hide the failure
            listen(FoldFinished(0, resumed=True))
            time.sleep(0.1)
    listen(FoldFinished(fold, resumed=False))


pytestmark = pytest.mark.usefixtures("quick_processes")


def test_every_fold_runs_and_its_events_arrive() -> None:
    seen: list[Event] = []
    run_side_by_side(_task, "fine", None, [0, 1, 2], processes=2, listen=seen.append)
    assert sorted(seen) == [FoldFinished(fold, resumed=False) for fold in (0, 1, 2)]


def test_folds_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 7)
    seen: list[Event] = []
    run_side_by_side(_task, "threads", None, [0], processes=2, listen=seen.append)
    assert seen[0] == Note("3 3")


@pytest.mark.parametrize(
    ("plan", "kind", "message"),
    [("mistake", ConfigError, "mend it"), ("fault", RuntimeError, "fold 1 failed(.|\n)*ZeroDivisionError")],
)
def test_a_failing_fold_ends_the_run_at_once(plan: str, kind: type[Exception], message: str) -> None:
    begin = time.monotonic()
    with pytest.raises(kind, match=message):
        run_side_by_side(_task, plan, None, [0, 1], processes=2, listen=lambda _: None)
    assert time.monotonic() - begin < 50


@pytest.mark.parametrize("processes", [1, 2])
def test_after_the_death_of_one_the_others_come_to_their_end(processes: int) -> None:
    seen: list[Event] = []
    with pytest.raises(RunError, match=r"process of trial 1 ended with exit code 9\n(.|\n)*same command goes on"):
        run_side_by_side(_task, "death", None, [0, 1, 2], processes=processes, listen=seen.append, what="trial")
    assert sorted(event.fold for event in seen if isinstance(event, FoldFinished)) == [0, 2]
    notes = [event.sentence for event in seen if isinstance(event, Note)]
    assert notes == ["last words", "the process of trial 1 ended with exit code 9; the others go on"]
