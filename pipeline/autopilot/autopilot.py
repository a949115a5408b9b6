"""Spends a time budget on arms, blends and a submission: `python run_cv.py CONFIG --autopilot 6h`."""

from __future__ import annotations

import glob
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from rich.console import Console

from pipeline.autopilot.arms import arms_of
from pipeline.autopilot.measure import measure
from pipeline.autopilot.schedule import FIRST, MEASURING, Schedule, Task, halved, make_schedule, short_of
from pipeline.autopilot.steps import AutopilotState, Steps, Training
from pipeline.competition.folds.rows import FULL_FIT, rows_of
from pipeline.config import load_config
from pipeline.console import number
from pipeline.errors import PipelineError, RunError
from pipeline.events import Listener
from pipeline.files import read_predictions
from pipeline.run.folder import RunFolder
from pipeline.run.records import Scores
from pipeline.search.trial_score import build_trial_score

_SHOWN = {"30m": 1800.0, "2h": 7200.0, "9h": 32400.0}  # budgets that a budget of 0 plans for
_MEASURE_SECONDS = 20.0  # for each arm of a budget of 0
_SEED_SHARES = (1.0, 0.75, 0.5)  # of the epochs, for another seed in what time is left
_OTHER_PACE = 1.3  # times slower or faster than measured: another plan
_END = 10.0, 1e-4  # seconds of a blend and of the report, and for each cell of the training table


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
    """Run what is left of an autopilot within `budget` seconds over all commands; 0 measures and prints plans only.

    NAME-autopilot holds the state and the best submission, NAME-autopilot-RUN are the runs. `begun` is the start of the
    command, on the clock of `time.monotonic`; `fresh` deletes what an earlier autopilot wrote first.

    Raises:
        PipelineError: no arm can be trained, or no submission can be written.
    """
    config, folder = load_config(path, overrides), RunFolder.named(f"{name}-autopilot")
    for old in map(RunFolder, folder.path.parent.glob(f"{glob.escape(folder.path.name)}-*") if fresh else ()):
        if old.is_marked():
            old.begin(fresh=True)
    folder.open(config, fresh=fresh)
    with folder.in_use():
        state = AutopilotState.load(folder.autopilot) if folder.autopilot.exists() else AutopilotState()
        arms = {arm: [*overrides, *words] for arm, words in arms_of(config).items()}
        steps = Steps(path, arms, config.train.epochs, name, budget, begun - state.spent, console, listen, state)
        try:
            _measure(steps, MEASURING)
            for text, seconds in ({f"{budget:.0f} s": budget} if budget else _SHOWN).items():
                schedule = make_schedule(steps.state.costs, steps.task, budget=seconds)
                print_schedule(console, schedule, text)
            if budget:
                _run(steps, schedule)
                _close(steps)
        finally:
            steps.save()


def _measure(steps: Steps, share: float) -> None:
    """Measure arms in order, as long as the last one's time fits into a share of the budget."""
    errors, last = list[PipelineError](), 0.0
    for arm in [arm for arm in steps.arms if arm not in steps.state.costs]:
        begun = steps.left()
        if steps.budget and steps.state.costs and steps.budget - begun + last > share * steps.budget:
            break
        limit = MEASURING * steps.budget / len(steps.arms) if steps.budget else _MEASURE_SECONDS
        try:
            costs = measure(steps.plan(arm), RunFolder.named(f"{steps.name}-autopilot", debug=True), seconds=limit)
        except PipelineError as error:
            errors.append(error)
            steps.say(f"arm {arm} is left out: {error}")
        else:
            steps.save(costs={**steps.state.costs, arm: costs})
        last = begun - steps.left()
    if not steps.state.costs:
        raise errors[0]
    plan = steps.plan(next(iter(steps.state.costs)))
    folds, beside, cells = len(plan.fold_numbers), plan.config.train.parallel_folds, plan.table.targets.size
    usual = plan.config.train.epoch_count if steps.epochs == "auto" else steps.epochs
    steps.task = Task(folds, min(beside, folds), usual, _END[0] + _END[1] * cells)


def _run(steps: Steps, schedule: Schedule) -> None:
    """A first submission, the arms on the same folds, all folds of the best, then what else fits."""
    arm, epochs = schedule.first
    first = Training(arm, steps.state.costs[arm], epochs)
    if steps.state.best is None:
        steps.train(first, _same(steps, first), "an early submission")
        steps.submit(first.name)
        steps.save(first_pace=steps.pace)
    _measure(steps, FIRST)
    pace = steps.state.first_pace
    budget = steps.budget if 1 / _OTHER_PACE < pace < _OTHER_PACE else steps.budget / pace
    again = make_schedule(steps.state.costs, steps.task, budget=budget)
    if again != schedule:
        text = f"trainings take {pace:.2f} times the measured seconds, measured are {', '.join(steps.state.costs)}"
        steps.say(f"the plan is made again: {text}")
        print_schedule(steps.console, again, f"{budget:.0f} measured seconds")
    compared = _compare_arms(steps, again)
    compared += [Training(arm, costs, costs.epochs) for arm, costs in steps.state.costs.items()]
    full = {run for run in compared if not _same(steps, run)}
    ranked = sorted(full, key=lambda run: -steps.key(run.name))
    finals, members = ranked[:1], list[str]()
    for run in finals:
        steps.submit(run.name)
        _finish(steps, run, members)
        others = [each for each in ranked[1:] if steps.fits(each, steps.unfinished(each)[:1])]
        if others and len(finals) == 1:
            finals.append(_unlike(steps, run, others))
    for seed in itertools.count(1):
        seeds = [_seed(steps, run, seed) for run in finals]
        for another in filter(None, seeds):
            _finish(steps, another, members)
        if not any(seeds):
            break
    for run in finals:
        done = steps.folder(run.name).fold(FULL_FIT).done.exists()
        if not done and not steps.unfinished(run) and steps.fits(run, [[FULL_FIT]]):
            steps.train(run, [[FULL_FIT]], "there is time for a training on all rows")
            _finish(steps, run, members)


def _compare_arms(steps: Steps, schedule: Schedule) -> list[Training]:
    """The trainings of the arms that are finished on the same folds."""
    runs = [Training(arm, steps.state.costs[arm], epochs) for arm, epochs in schedule.arms.items()]
    waves = math.ceil(steps.task.folds / steps.task.beside) - 1
    spared = steps.pace * waves * max((run.costs.train(run.epochs) for run in runs), default=0.0)
    if len(runs) > 2:
        short = {run: run._replace(epochs=short_of(run.epochs)) for run in runs}
        for run in short.values():
            steps.train(run, _same(steps, run), "a short training", reserve=spared)
        runs = sorted(runs, key=lambda run: -steps.key(short[run].name))[: halved(len(runs))]
        steps.say(f"{', '.join(run.arm for run in runs)} go on: the best {len(runs)} after short trainings")
    why = f"one of {len(runs)} arms on the same rows: the best of their scores flatters" if runs[1:] else "the only arm"
    return [run for run in runs if steps.train(run, _same(steps, run), why, reserve=spared if runs[1:] else 0.0)]


def _same(steps: Steps, run: Training) -> list[list[int]]:
    """The wave of the folds on which arms are compared, as far as they are not finished."""
    same = steps.plan(run.arm).fold_numbers[: steps.task.beside]
    left = [fold for wave in steps.unfinished(run) for fold in wave if fold in same]
    return [left] if left else []


def _seed(steps: Steps, run: Training, seed: int) -> Training | None:
    """The training of all folds with another seed and the most epochs that fit; None where fewer than half fit."""
    for share in _SEED_SHARES:
        another = run._replace(epochs=math.ceil(share * run.epochs), seed=seed)
        if steps.fits(another, steps.unfinished(another)):
            return another
    return None


def _finish(steps: Steps, run: Training, members: list[str]) -> None:
    """Train all folds of a run that fit, submit it, and blend it with the other members."""
    waves = steps.unfinished(run)
    if not waves or steps.fits(run, waves[:1]):
        steps.train(run, waves, f"seed {run.seed}" if run.seed else "all folds")
    steps.submit(run.name)
    if run.name not in members and steps.key(run.name) > -math.inf:
        members.append(run.name)
    if len(members) > 1:
        steps.blend(members)


def _unlike(steps: Steps, best: Training, others: Sequence[Training]) -> Training:
    """The training whose mean with the best one has the highest score on the folds that arms are compared on."""
    plan = steps.plan(best.arm)
    score, labels, folds = build_trial_score(plan), list(plan.table.labels), plan.fold_numbers[: steps.task.beside]

    def together(run: Training) -> float:
        scores = []
        for fold in folds:
            ids = [plan.table.ids[row] for row in rows_of(plan.folds, fold).validation]
            files = [steps.folder(each.name).fold(fold).oof for each in (best, run)]
            logits = [read_predictions(file, labels).loc[ids, labels].to_numpy(np.float64) for file in files]
            scores.append(score(fold, (logits[0] + logits[1]) / 2))
        return fmean(scores) if score.greater_is_better else -fmean(scores)

    means = {run: together(run) for run in others}
    found = max(means, key=lambda run: means[run])
    steps.say(f"{best.name} (the best) and {found.name} go on: their mean has {score.name} {abs(means[found]):.4f}")
    return found


def _close(steps: Steps) -> None:
    """Write the report of the best run, and print what was chosen."""
    from pipeline.report.page.write import save_run_report  # matplotlib, which a training need not wait for

    best, home = steps.state.best, steps.folder()
    if best is None:
        raise RunError(
            "no training of the autopilot came to a score",
            got=f"{steps.budget - steps.left():.0f} s are spent",
            remedy="read why above; give --autopilot more time, or begin anew with --fresh",
        )
    save_run_report(steps.console, steps.folder(best))
    tried = len([*home.path.parent.glob(f"{glob.escape(home.path.name)}-*/submission.json")])
    score = number(Scores.load(steps.folder(best).scores).cross_fitted.pooled)
    mark = f"cross-fitted; chosen among {tried} on the same rows, which flatters a little"
    steps.say(f"{home.submission} is that of {best}: {score} ({mark})")


def print_schedule(console: Console, schedule: Schedule, budget: str) -> None:
    """Print the steps of a plan with their seconds, and the seconds in total."""
    console.print(f"Plan for {budget}; the first submission is due after {100 * FIRST:.0f} %:", highlight=False)
    total = 0.0
    for name, seconds in schedule.steps:
        total += seconds
        console.print(f"{seconds:8.0f} s  {total:8.0f} s  {name}", highlight=False)
