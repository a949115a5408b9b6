"""Spends a time budget on arms, blends and a submission: `python run_cv.py CONFIG --autopilot 6h`."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.autopilot.arms import arms_of
from pipeline.autopilot.measure import measure
from pipeline.autopilot.schedule import FIRST, Schedule, Task, halved, make_schedule, short_of
from pipeline.autopilot.steps import AutopilotState, Steps
from pipeline.competition.folds.rows import rows_of
from pipeline.config import load_config
from pipeline.console import number
from pipeline.errors import PipelineError, RunError
from pipeline.events import Listener
from pipeline.files import read_predictions
from pipeline.run.folder import RunFolder
from pipeline.search.trial_score import build_trial_score

_MEASURE, _MEASURE_SECONDS = 0.05, 20.0  # of the budget, for all arms; for each arm of a budget of 0
_SHOWN = {"30m": 1800.0, "2h": 7200.0, "9h": 32400.0}  # budgets that a budget of 0 plans for
_LEAST = 0.5  # of an arm's epochs, for another seed in what time is left
_SPARE = 0.01  # of the budget, between the last step and the end
_BLEND = 3.0, 1e-4  # seconds of a blend, and for each cell of the training table


def autopilot(
    path: Path,
    overrides: Sequence[str],
    name: str,
    *,
    budget: float,
    begun: float,
    fresh: bool,
    console: Console,
    listen: Listener,
) -> None:
    """Run what is left of an autopilot.

    Args:
        path: of the config.
        overrides: of its keys.
        name: of the run: NAME-autopilot holds the state and the best submission, NAME-autopilot-ARM are the runs.
        budget: seconds, over all commands; 0 measures and prints plans only.
        begun: the start of the command, on the clock of `time.monotonic`.
        fresh: begin anew.
        console: receives plans and decisions.
        listen: receives the events of trainings.

    Raises:
        PipelineError: no arm can be trained, or no submission can be written.
    """
    config, folder = load_config(path, overrides), RunFolder.named(f"{name}-autopilot")
    folder.open(config, fresh=fresh)
    with folder.in_use():
        state = AutopilotState.load(folder.autopilot) if folder.autopilot.exists() else AutopilotState()
        before, state = state, state.with_budget(budget)
        fresh = fresh or (bool(before.done) and not state.done)  # what had no score may have had other epochs
        arms = {arm: [*overrides, *words] for arm, words in arms_of(config).items()}
        steps = Steps(path, arms, name, budget, begun - state.spent, fresh, console, listen, state)
        try:
            _measure(steps, startup=time.monotonic() - begun)
            if budget == 0:
                for text, seconds in _SHOWN.items():
                    print_schedule(console, make_schedule(steps.state.costs, steps.task, budget=seconds, spent=0), text)
            else:
                _Course(steps).run()
        finally:
            steps.save()
    if budget:
        if steps.state.best is None:
            raise RunError(
                "no training of the autopilot came to a score",
                got=f"{steps.state.spent:.0f} s are spent",
                remedy="read why above; give --autopilot more time, or begin anew with --fresh",
            )
        best, tried = steps.state.done[steps.state.best], sum(", submission" in step for step in steps.state.done)
        mark = f"cross-fitted; chosen among {tried} on the same rows, which flatters a little"
        steps.say(f"{folder.submission} is that of {steps.state.best}: {number(best.score)} ({mark})")


def _measure(steps: Steps, *, startup: float) -> None:
    errors = []
    for arm in steps.arms:
        if arm in steps.state.costs:
            continue
        if steps.budget and steps.state.costs and steps.budget - steps.left() > _MEASURE * steps.budget:
            steps.say(f"arm {arm} is left out: no time to measure it")
            continue
        limit = max(_MEASURE * steps.budget / len(steps.arms), 5.0) if steps.budget else _MEASURE_SECONDS
        try:
            folder = RunFolder.named(f"{steps.name}-autopilot", debug=True)
            costs = measure(steps.plan(arm), folder, seconds=limit, startup=startup, listen=steps.listen)
        except PipelineError as error:
            errors.append(error)
            steps.say(f"arm {arm} is left out: {error}")
        else:
            steps.save(costs={**steps.state.costs, arm: costs})
    if not steps.state.costs:
        raise errors[0]
    plan = steps.plan(next(iter(steps.state.costs)))
    beside = min(plan.config.train.parallel_folds, os.cpu_count() or 1)
    steps.task = Task(len(plan.fold_numbers), beside, _BLEND[0] + _BLEND[1] * plan.table.targets.size)


class _Course:
    """The trainings of an autopilot in their order; what is done already takes no time."""

    def __init__(self, steps: Steps) -> None:
        self._steps, self._costs, self._task = steps, steps.state.costs, steps.task
        if steps.state.schedule is None:
            spent = steps.budget - steps.left()
            steps.save(schedule=make_schedule(self._costs, self._task, budget=steps.budget, spent=spent))
        assert steps.state.schedule is not None
        self._schedule: Schedule = steps.state.schedule
        print_schedule(steps.console, self._schedule, f"{steps.budget:.0f} s")

    def run(self) -> None:
        """A first submission, the arms on fold 0, all folds of the best, blends, and further seeds in what is left."""
        arm, epochs = self._schedule.first, self._schedule.first_epochs
        run = arm if self._schedule.epochs.get(arm) == epochs else f"{arm}-first"
        if math.isfinite(self._fold(run, arm, epochs, self._predicting(arm, 1), "an early submission")):
            self._steps.submit(f"{run}@0")
        finals, members = self._finals(self._ranked()), list[str]()
        if finals and self._steps.state.done[f"{finals[0]}@0"].score is not None:
            self._steps.submit(f"{finals[0]}@0")
        for turn in itertools.count() if finals else ():
            arm, seed = finals[turn % len(finals)], turn // len(finals)
            run = f"{arm}-seed{seed}" if seed else arm
            epochs = self._affordable(arm, run, seed=seed, blends=bool(members)) if turn else self._schedule.epochs[arm]
            if not epochs:
                self._steps.say(f"no time for {run}: {max(0.0, self._steps.left()):.0f} s are left")
                break
            self._all_folds(run, arm, epochs, seed)
            if self._steps.is_complete(run):
                members.append(run)
            elif seed:
                break
            if len(members) > 1 and (turn + 1) % len(finals) == 0:
                self._steps.blend(members)
        if len(members) > 1:
            self._steps.blend(members)

    def _ranked(self) -> list[str]:
        """The arms with a score of all their epochs on fold 0, the best first; the first arm where there is none."""
        wanted = self._schedule.epochs
        arms = [*wanted]
        spared = max((self._rest(arm, wanted[arm], 1) for arm in arms), default=0.0)
        if self._schedule.short:
            why = "a short training"
            scores = {arm: self._fold(f"{arm}-short", arm, short_of(wanted[arm]), spared, why) for arm in arms}
            arms = sorted(arms, key=lambda arm: scores[arm], reverse=True)[: halved(len(arms))]
            self._steps.say(f"{', '.join(arms)} go on: the best {len(arms)} after short trainings")
        why = f"one of {len(arms)} arms on the same fold: the best of their scores flatters" if arms[1:] else "fold 0"
        scores = {arm: self._fold(arm, arm, wanted[arm], spared, why) for arm in arms}
        ranked = sorted(arms, key=lambda arm: scores[arm], reverse=True)
        return [arm for arm in ranked if math.isfinite(scores[arm])] or arms[:1]

    def _finals(self, ranked: Sequence[str]) -> Sequence[str]:
        """The best arm, and the one whose mean with it has the highest score on fold 0."""
        if len(ranked) < 2:
            return ranked
        plan = self._steps.plan(ranked[0])
        score, fold, labels = build_trial_score(plan), plan.fold_numbers[0], list(plan.table.labels)
        ids = [plan.table.ids[row] for row in rows_of(plan.folds, fold).validation]
        files = {arm: self._steps.folder(arm).fold(fold).oof for arm in ranked}
        logits = {arm: read_predictions(file, labels).loc[ids, labels].to_numpy(float) for arm, file in files.items()}
        sign = 1.0 if score.greater_is_better else -1.0
        means = {arm: sign * score(fold, (logits[ranked[0]] + logits[arm]) / 2) for arm in ranked[1:]}
        second = max(means, key=lambda arm: means[arm])
        mean = f"their mean has {score.name} {sign * means[second]:.4f} on fold 0"
        self._steps.say(f"{ranked[0]} (the best) and {second} go on: {mean}")
        return [ranked[0], second]

    def _affordable(self, arm: str, run: str, *, seed: int, blends: bool) -> int:
        """The epochs for all folds of a run in the time that is left; 0 where these are too few."""
        wanted = self._schedule.epochs[arm]
        left = self._steps.left() - _SPARE * self._steps.budget - (self._task.blend if blends else 0.0)
        fewest = math.ceil(_LEAST * wanted) if seed else wanted
        able = (epochs for epochs in range(wanted, fewest - 1, -1) if self._rest(arm, epochs, 0 if seed else 1) <= left)
        return wanted if run in self._steps.state.done else next(able, 0)

    def _fold(self, run: str, arm: str, epochs: int, reserve: float, why: str) -> float:
        """Train fold 0; returns its score, higher is better."""
        planned = self._costs[arm].fold(epochs) + self._costs[arm].images
        done = self._steps.train(f"{run}@0", arm, epochs=epochs, planned=planned, reserve=reserve, why=why)
        return self._steps.key(done)

    def _all_folds(self, run: str, arm: str, epochs: int, seed: int) -> None:
        planned, reserve = self._task.rest(self._costs[arm], epochs, 0 if seed else 1), self._predicting(arm)
        why = f"{epochs} epochs with seed {seed}" if seed else "all folds"
        done = self._steps.train(run, arm, epochs=epochs, planned=planned, reserve=reserve, why=why, seed=seed)
        if done.score is not None:
            self._steps.submit(run)

    def _rest(self, arm: str, epochs: int, done: int) -> float:
        return self._steps.pace * self._task.rest(self._costs[arm], epochs, done)

    def _predicting(self, arm: str, models: int | None = None) -> float:
        """The seconds to keep for a training that is just starting, scores, predictions of the test images, the end."""
        count, costs = self._task.folds if models is None else models, self._costs[arm]
        return self._steps.pace * (costs.start + self._task.blend + count * costs.predict) + _SPARE * self._steps.budget


def print_schedule(console: Console, schedule: Schedule, budget: str) -> None:
    """Print the steps of a plan with their times."""
    drawn = Table(
        title=f"Plan for {budget}; the first submission is due after {100 * FIRST:.0f} %", title_justify="left"
    )
    for name in ("step", "seconds", "in total"):
        drawn.add_column(name, justify="left" if name == "step" else "right")
    total = 0.0
    for step in schedule.steps:
        total += step.seconds
        drawn.add_row(step.name, f"{step.seconds:.0f}", f"{total:.0f}")
    console.print(drawn)
