"""The steps of an autopilot: each is done once, also over several commands, and prints score, cost and reason."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from pydantic import StrictBool, StrictFloat, StrictStr
from rich.console import Console

from pipeline.autopilot.schedule import Costs, Schedule, Task
from pipeline.config import as_metric_config, load_config
from pipeline.console import number
from pipeline.errors import ConfigError, PipelineError
from pipeline.events import Event, Listener
from pipeline.files import write_atomically
from pipeline.report.compare import compare
from pipeline.run.blend import blend
from pipeline.run.cv import run_cv
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan, prepare
from pipeline.run.records import Record, Score, Scores
from pipeline.run.submission.submit import submit
from pipeline.run.trained_run import open_run

_LATE = 2.0, 10.0  # a training may take so many times its planned seconds, and seconds more
_SAVE_SECONDS = 2.0


@dataclass(frozen=True)
class Done:
    """A step that is over; the score, with its 95 % interval, is cross-fitted, and None where no fold is finished."""

    seconds: StrictFloat
    planned: StrictFloat
    score: Score = None
    interval: tuple[Score, Score] = (None, None)
    complete: StrictBool = False  # all folds are scored


@dataclass(frozen=True)
class AutopilotState(Record):
    """autopilot.json: what an autopilot has done; `best` is the step whose run gave the submission."""

    budget: StrictFloat = 0.0
    spent: StrictFloat = 0.0  # seconds, over all commands
    costs: dict[StrictStr, Costs] = field(default_factory=dict)
    schedule: Schedule | None = None
    done: dict[StrictStr, Done] = field(default_factory=dict)
    best: StrictStr | None = None

    def with_budget(self, budget: float) -> Self:
        """The state for this budget; with more time than before, steps that had too little are done again."""
        if budget <= self.budget:
            return self
        kept = {name: each for name, each in self.done.items() if each.complete or ("@0" in name and each.score)}
        best = self.best if self.best in kept else None
        return replace(self, budget=budget, done=kept, best=best, schedule=self.schedule if kept else None)


@dataclass
class Steps:
    """The steps of the autopilot `name`; its folder is NAME-autopilot, its runs are NAME-autopilot-ARM.

    Attributes:
        path: of the config.
        arms: the overrides of each arm.
        begun: when the time began, on the clock of `time.monotonic`.
        fresh: whether a run that an earlier autopilot left is begun anew.
        listen: receives the events of trainings.
    """

    path: Path
    arms: dict[str, list[str]]
    name: str
    budget: float
    begun: float
    fresh: bool
    console: Console
    listen: Listener
    state: AutopilotState
    task: Task = field(default_factory=lambda: Task(1, 1, 0.0))
    _plans: dict[str, Plan] = field(default_factory=dict)
    _opened: set[str] = field(default_factory=set)
    _saved: float = 0.0

    def folder(self, run: str) -> RunFolder:
        """The folder of one of the runs, or of the autopilot itself."""
        return RunFolder.named(f"{self.name}-{run}" if run == "autopilot" else f"{self.name}-autopilot-{run}")

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
        self.state = replace(self.state, spent=self._saved - self.begun, **changes)
        self.state.save(self.folder("autopilot").autopilot)

    def tick(self, event: Event | None = None) -> None:
        """A listener that also keeps the spent time on disk."""
        if event is not None:
            self.listen(event)
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def say(self, text: str) -> None:
        """Print a line, with the time."""
        spent = int(self.budget - self.left())
        self.console.print(f"[{spent // 3600}:{spent // 60 % 60:02}:{spent % 60:02}] {text}")

    @property
    def pace(self) -> float:
        """The seconds of the trainings so far per planned second, at least 1."""
        done = [each for each in self.state.done.values() if each.planned]
        return max(1.0, sum(each.seconds for each in done) / sum(each.planned for each in done)) if done else 1.0

    def is_complete(self, run: str) -> bool:
        """Whether all folds of a run are trained and its submission is written."""
        return all(each in self.state.done and self.state.done[each].complete for each in (run, f"{run}, submission"))

    def key(self, done: Done) -> float:
        """The score of a step, higher is better."""
        metric = next(iter(self._plans.values())).metric
        return float("-inf") if done.score is None else done.score * (1 if metric.greater_is_better else -1)

    def train(
        self, run: str, arm: str, *, epochs: int, planned: float, reserve: float, why: str, seed: int = 0
    ) -> Done:
        """Train all folds of a run, or fold 0 if its name ends with "@0"; keeps `reserve` seconds for what must follow.

        A training that fails, or takes more than twice its time, has no score.
        """
        if run in self.state.done:
            return self.state.done[run]
        begun, plan, name = time.monotonic(), self.plan(arm), run.removesuffix("@0")
        limit = min(self.left() - reserve, _LATE[0] * self.pace * planned + _LATE[1])
        changed = {"epochs": epochs, "seed": plan.config.train.seed + seed, "full_fit": False}
        config = plan.config.model_copy(update={"train": plan.config.train.model_copy(update=changed)})
        timed, scores = replace(plan, config=config, deadline=begun + limit), None
        folds = plan.fold_numbers[:1] if run != name else None
        fresh = self.fresh and name not in self._opened
        self._opened.add(name)
        try:
            scores = run_cv(timed, self.folder(name), folds=folds, fresh=fresh, listen=self.tick)
        except PipelineError as error:
            why = str(error)
        return self._close(run, scores, begun, planned, why if scores or self.left() < 0 else f"{why}; not finished")

    def submit(self, run: str) -> None:
        """Predict the test images with a run; take its submission where its score is better than the best so far."""
        step = f"{run}, submission"
        if step in self.state.done:
            return
        begun, name = time.monotonic(), run.removesuffix("@0")
        folder, of_run = self.folder(name), self.state.done[run]
        submit([open_run(folder)], views=None, out=None, images=None, sample=None, on_image=lambda *_: self.tick())
        best, why = self.state.best, "it replaces the submission: "
        before = None if best is None else self.state.done[best]
        if before is None:
            why += "the first"
        elif of_run.complete and not before.complete:
            why += "all folds predict"
        elif self.key(of_run) <= self.key(before):
            why = f"the submission stays: {best} has {number(before.score)}"
        elif run.startswith("blend") and not str(best).startswith("blend") and (doubt := self._doubt(str(best), name)):
            why = f"the submission stays: {doubt}"
        else:
            why += f"{best} has {number(before.score)}"
        changed = {}
        if why.startswith("it"):
            write_atomically(self.folder("autopilot").submission, partial(shutil.copyfile, folder.submission))
            changed["best"] = run
        done = replace(of_run, seconds=time.monotonic() - begun, planned=0.0)
        self.save(done={**self.state.done, step: done}, **changed)
        self._print(step, done, why)

    def blend(self, members: Sequence[str]) -> None:
        """Blend runs and submit the blend."""
        run, begun = f"blend-{len(members)}", time.monotonic()
        if run not in self.state.done:
            custom = as_metric_config(self.plan(next(iter(self._plans))).config.competition.metric).function
            paths = [self.folder(member).path for member in members]
            config, out = self.path if custom else None, self.folder(run).path
            record, scores = blend(paths, [], config=config, out=out, listen=self.tick)
            self._close(run, scores, begun, 0.0, f"{record.mean}, {record.kind} of {', '.join(members)}")
        self.submit(run)

    def _doubt(self, best: str, name: str) -> str | None:
        """A reason not to prefer a blend to a single run: its gain is within the standard error of the difference."""
        try:
            found = compare(self.folder(best.removesuffix("@0")), self.folder(name))
        except ConfigError:  # a custom metric is not run from a run folder
            return None
        error = (found.spread.high - found.spread.low) / 3.92
        gain = f"the blend gains {abs(found.difference):.4f}, the standard error is {error:.4f}"
        return gain if abs(found.difference) <= error else None

    def _close(self, run: str, scores: Scores | None, begun: float, planned: float, why: str) -> Done:
        done = Done(time.monotonic() - begun, planned)
        if scores is not None:
            found = scores.cross_fitted
            done = replace(done, score=found.pooled, interval=found.interval, complete=scores.complete)
        self.save(done={**self.state.done, run: done})
        self._print(run, done, why)
        return done

    def _print(self, step: str, done: Done, why: str) -> None:
        low, high = map(number, done.interval)
        score = "no score" if done.score is None else f"{number(done.score)} (95 % {low} to {high})"
        self.say(f"{step}: {score}, {done.seconds:.0f} s; {why}")
