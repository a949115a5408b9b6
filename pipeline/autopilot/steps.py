"""The steps of an autopilot: each leaves an ordinary run folder, prints score, cost and reason, and is done once."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import StrictFloat, StrictStr
from rich.console import Console

from pipeline.autopilot.schedule import Costs, Task
from pipeline.competition.folds.rows import FULL_FIT
from pipeline.config import as_metric_config, load_config
from pipeline.console import number
from pipeline.errors import PipelineError
from pipeline.events import EpochFinished, Event, Fold, Listener
from pipeline.files import read_text, write_atomically
from pipeline.report.compare import compare
from pipeline.run.blend import blend
from pipeline.run.cv import run_cv
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan, prepare
from pipeline.run.records import Record, Scores
from pipeline.run.submission.submit import submit
from pipeline.run.trained_run import open_run

_SPARE = 0.01  # of the budget, between the last step and the end
_SAVE_SECONDS = 2.0
_UNCOUNTED = 3  # epochs of a training that are too few for its pace
_FASTEST = 0.7  # trainings take at least this share of the planned seconds


@dataclass(frozen=True)
class AutopilotState(Record):
    """autopilot.json: beside the run folders, all that a later command needs to go on."""

    spent: StrictFloat = 0.0  # seconds, over all commands
    costs: dict[StrictStr, Costs] = field(default_factory=dict)
    trained: StrictFloat = 0.0  # seconds of epochs, but for the first two of each training
    planned: StrictFloat = 0.0  # seconds that were planned for these
    read: tuple[StrictStr, ...] = ()  # arms whose images are read
    first_pace: StrictFloat = 1.0  # see `Steps.pace`, after the first submission
    best: StrictStr | None = None  # the run that gave the submission


class Training(NamedTuple):
    """A training of an arm on each fold; its run is NAME-autopilot- and `name`."""

    arm: str
    costs: Costs
    epochs: int
    seed: int = 0

    @property
    def name(self) -> str:
        """The arm; with its epochs where these are not the usual ones, and with its seed."""
        epochs = "" if self.epochs == self.costs.epochs else f"-{self.epochs}ep"
        return self.arm + epochs + (f"-seed{self.seed}" if self.seed else "")


@dataclass
class Steps:
    """The steps of the autopilot `name`; its folder is NAME-autopilot.

    Attributes:
        path: of the config.
        arms: the overrides of each arm.
        epochs: of the config, which arms from scratch exceed.
        begun: when the time began, on the clock of `time.monotonic`.
        listen: receives the events of trainings.
    """

    path: Path
    arms: dict[str, list[str]]
    epochs: int | Literal["auto"]
    name: str
    budget: float
    begun: float
    console: Console
    listen: Listener
    state: AutopilotState
    task: Task = field(default_factory=lambda: Task(1, 1, 1, 0.0))
    _plans: dict[str, Plan] = field(default_factory=dict)
    _saved: float = 0.0

    def folder(self, run: str = "") -> RunFolder:
        """The folder of one of the runs, or of the autopilot itself."""
        return RunFolder.named(f"{self.name}-autopilot" + (f"-{run}" if run else ""))

    def plan(self, arm: str) -> Plan:
        """The checked plan of an arm."""
        if arm not in self._plans:
            self._plans[arm] = prepare(load_config(self.path, self.arms[arm]), debug=False, listen=self.tick)
        return self._plans[arm]

    def left(self) -> float:
        """The seconds that are left."""
        return self.budget - (time.monotonic() - self.begun)

    def save(self, **changes: Any) -> None:
        """Change the state, and write it."""
        self._saved = time.monotonic()
        spent = self._saved - self.begun if self.budget else 0.0  # to print plans costs nothing
        self.state = replace(self.state, spent=spent, **changes)
        self.state.save(self.folder().autopilot)

    def tick(self, event: Event | None = None) -> None:
        """A listener that also keeps the spent time on disk."""
        if event is not None:
            self.listen(event)
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def say(self, text: str) -> None:
        """Print a line, with the time."""
        spent = int(self.budget - self.left())
        time_ = f"[{spent // 3600}:{spent // 60 % 60:02}:{spent % 60:02}]"
        self.console.print(f"{time_} {text}", markup=False, highlight=False, soft_wrap=True)

    @property
    def pace(self) -> float:
        """The seconds of the epochs so far per planned second."""
        return max(_FASTEST, self.state.trained / self.state.planned) if self.state.planned else 1.0

    def key(self, run: str) -> float:
        """The cross-fitted score of a run, higher is better; -inf where no fold is scored."""
        scores = self._scores(run)
        score = None if scores is None else scores.cross_fitted.pooled
        return -math.inf if scores is None or score is None else score if scores.greater_is_better else -score

    def unfinished(self, run: Training) -> list[list[int]]:
        """The folds of a run that are not trained, in waves that are trained side by side."""
        plan = self.plan(run.arm)
        finished = self.folder(run.name).finished_folds(plan.config.train)
        left = [fold for fold in plan.fold_numbers if fold not in finished]
        return [left[start : start + self.task.beside] for start in range(0, len(left), self.task.beside)]

    def fits(self, run: Training, waves: Sequence[Sequence[Fold]]) -> bool:
        """Whether there is time for these waves, predictions, a blend and the report; or the first one has begun."""
        begun = any(self.folder(run.name).fold(fold).is_begun() for wave in waves[:1] for fold in wave)
        seconds = self.pace * sum(self._planned(run, wave) for wave in waves)
        return begun or seconds <= self.left() - self._closing(run)

    def train(self, run: Training, waves: Sequence[Sequence[Fold]], why: str, *, reserve: float = 0.0) -> bool:
        """Train one wave after the other; returns whether all are finished. The full fit is a wave of its own.

        Each stops where its time is over: `reserve` seconds are kept beside those for predictions and the end. After
        the first, a wave begins only where it fits. Where one fails the reason is printed.
        """
        plan, folder = self.plan(run.arm), self.folder(run.name)
        for place, wave in enumerate(waves):
            if place and not self.fits(run, [wave]):
                self.say(f"{run.name}: no time for folds {wave}, {max(0.0, self.left()):.0f} s are left")
                return False
            full, ends = wave == [FULL_FIT], defaultdict[Fold, list[float]](list)
            changed = {"epochs": run.epochs, "seed": plan.config.train.seed + run.seed, "full_fit": full}
            config = plan.config.model_copy(update={"train": plan.config.train.model_copy(update=changed)})
            begun = time.monotonic()

            def listen(event: Event, ends: dict[Fold, list[float]] = ends) -> None:
                if isinstance(event, EpochFinished):
                    ends[event.fold].append(time.monotonic())
                self.tick(event)

            timed = replace(plan, config=config, deadline=begun + self.left() - self._closing(run) - reserve)
            try:
                run_cv(timed, folder, folds=None if full else [int(fold) for fold in wave], fresh=False, listen=listen)
            except PipelineError as error:
                self.say(f"{run.name}: {error}")
                return False
            finished = all(folder.fold(fold).done.exists() for fold in wave)
            counted = [times[1:] for times in ends.values() if len(times) > _UNCOUNTED]
            seconds = self.state.trained + sum(times[-1] - times[0] for times in counted)
            planned = sum(len(times) - 1 for times in counted) * run.costs.epoch / plan.config.train.seeds
            read = (*self.state.read, run.arm) if finished else self.state.read
            self.save(trained=seconds, planned=self.state.planned + planned, read=tuple({*read}))
            what = f"{run.name}, folds {', '.join(map(str, wave))}"
            self._report(what, run.name, begun, why if finished else "unfinished: its time is over")
            if not finished:
                return False
        return True

    def submit(self, run: str) -> None:
        """Predict the test images with a scored run, unless that is done; take its submission where it is the best."""
        begun, folder = time.monotonic(), self.folder(run)
        done = _is_newer(folder.submitted, [folder.blend, *folder.path.glob("*/done.json")])
        if self._scores(run) is None or (done and run == self.state.best):
            return
        if not done:
            submit([open_run(folder)], views=None, out=None, images=None, sample=None, on_image=lambda *_: self.tick())
        best, replaces, why = self.state.best or run, True, "its submission is written"
        if best != run:
            replaces, why = self._weighed(best, run)
        if replaces:
            write_atomically(self.folder().submission, partial(shutil.copyfile, folder.submission))
            self.save(best=run)
        if replaces or not done:
            self._report(f"{run}, submission", run, begun, why)

    def blend(self, members: Sequence[str]) -> None:
        """Blend runs whose submissions are written, unless that is done, and submit the blend."""
        run, begun = f"blend-{len(members)}", time.monotonic()
        if not _is_newer(self.folder(run).blend, [self.folder(member).submitted for member in members]):
            custom = as_metric_config(next(iter(self._plans.values())).config.competition.metric).function
            paths, config = [self.folder(member).path for member in members], self.path if custom else None
            record, _ = blend(paths, [], config=config, out=self.folder(run).path, listen=self.tick)
            self._report(run, run, begun, f"{record.mean}, {record.kind} of {len(members)} runs")
        self.submit(run)

    def _weighed(self, best: str, run: str) -> tuple[bool, str]:
        """Whether the submission of a run replaces the best one, and why.

        It must not be worse on the rows that both have validated; a blend must beat one run by the standard error of
        the difference. With more folds, or a blend of more members, it may be worse by as much: the mean of more
        models is better.
        """
        gain, error = self.key(run) - self.key(best), 0.0
        before, now = (Scores.load(self.folder(each).scores) for each in (best, run))
        with contextlib.suppress(PipelineError):  # a custom metric is not run from a run folder
            found = compare(self.folder(best), self.folder(run))
            gain = found.difference if now.greater_is_better else -found.difference
            error = (found.spread.high - found.spread.low) / 3.92
        more = len(now.folds) > len(before.folds) or best.startswith("blend-")
        wanted = -error if more and run.startswith("blend-") >= best.startswith("blend-") else 0.0
        wanted = error if run.startswith("blend-") > best.startswith("blend-") else wanted
        text = f"the gain is {gain:.4f}, with a standard error of {error:.4f}"
        return gain >= wanted, f"it replaces {best}: {text}" if gain >= wanted else f"{best} stays: {text}"

    def _planned(self, run: Training, folds: Sequence[Fold]) -> float:
        """The seconds to train these folds side by side, as measured; epochs before a kill are not trained again."""
        files = [self.folder(run.name).fold(fold).epochs for fold in folds]
        done = min(len(read_text(file).splitlines()) if file.exists() else 0 for file in files)
        known = run.arm in self.state.read and not (run.seed and self.plan(run.arm).config.train.frozen_backbone)
        rows = self.task.folds / (self.task.folds - 1) if folds == [FULL_FIT] else 1.0  # times those of a fold
        return (0.0 if known or done else run.costs.images) + rows * run.costs.train(run.epochs - done)

    def _closing(self, run: Training) -> float:
        """The seconds to keep for the predictions of all folds, a blend, the report and the end."""
        return self.pace * self.task.folds * run.costs.predict + self.task.end + _SPARE * self.budget

    def _scores(self, run: str) -> Scores | None:
        file = self.folder(run).scores
        return Scores.load(file) if file.exists() else None

    def _report(self, step: str, run: str, begun: float, why: str) -> None:
        score, scores = "no score", self._scores(run)
        if scores is not None:
            low, high = map(number, scores.cross_fitted.interval)
            score = f"{number(scores.cross_fitted.pooled)} (95 % {low} to {high})"
        self.say(f"{step}: {score}, {time.monotonic() - begun:.0f} s; {why}")


def _is_newer(file: Path, sources: Sequence[Path]) -> bool:
    times = [source.stat().st_mtime for source in sources if source.exists()]
    return file.exists() and file.stat().st_mtime >= max(times, default=0.0)
