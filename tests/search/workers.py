"""Workers of a study with trials that take no time; other processes can import them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from pathlib import Path

from pipeline.config import Dimension, SearchConfig
from pipeline.search.space import Parameter
from pipeline.search.storage import open_storage
from pipeline.search.study import TicketStudy, suggest

PARAMETERS = (
    Parameter("x", "loss.gamma_neg", None, Dimension(low=0, high=6), integer=False),
    Parameter("n", "model.hidden_dim", None, Dimension(low=8, high=64, step=8), integer=True),
)
OWN = {"x": 2.0, "n": 16}


def open_study(url: str | None, folder: Path, search: SearchConfig, *, grace: int = 1) -> TicketStudy:
    """The study `test`, which notices dead trials after a second or two."""
    storage = open_storage(url, folder / "study.db", lock=folder / "lock", heartbeat=1, grace=grace)
    return TicketStudy(storage, name="test", lock=folder / "lock", search=search, maximize=True, epochs=3)


def work(url: str | None, folder: Path, trials: int, die_at: int | None = None) -> None:
    """Draw and finish trials until none is left; the process kills itself in trial `die_at`."""
    with contextlib.closing(open_study(url, folder, SearchConfig(trials=trials), grace=4)) as study:
        study.begin({}, own=OWN)
        while (trial := study.draw()) is not None or study.progress().running > 0:
            if trial is None:
                time.sleep(0.2)
                continue
            with study.alive(trial):
                values = suggest(trial, PARAMETERS)
                if trial.number == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(0.05)
            study.complete(trial, -abs(values["x"] - 3.0))


def work_side_by_side(
    url: str | None, folder: Path, *, trials: int, die_at: int | None = None, apart: bool = False
) -> list[int | None]:
    """The exit codes of two workers that run at the same time in two processes. With `apart` they share no folder."""
    context = multiprocessing.get_context("forkserver")
    folders = [folder / "one", folder / "other"] if apart else [folder, folder]
    processes = [
        context.Process(target=work, args=(url, place, trials, death))
        for place, death in zip(folders, (None, die_at), strict=True)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    return [process.exitcode for process in processes]
