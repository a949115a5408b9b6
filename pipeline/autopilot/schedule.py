"""Plans an autopilot: which arms are trained, for how many epochs, and the seconds of each step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import StrictFloat, StrictInt

FIRST = 0.1
"""The share of the budget within which the first submission is written."""
MEASURING = 0.03
"""The share of the budget for measuring arms before the first submission."""

_EARLY = 0.04  # of the budget, planned for the first submission: the machine may be slower than measured
_SPARE = 0.07  # of the budget, for later steps that take longer than measured
_SHORT = 0.25  # of the epochs, in a first round
_DEAREST = 0.6  # of the time that is left: an arm that takes more for all folds is not compared
_ENOUGH = 0.7  # of the usual epochs
_LONE = 0.8  # of the time that is left, for one training of all folds: if it is slower than planned, nothing remains


@dataclass(frozen=True)
class Costs:
    """The seconds of an arm on this machine, with at most `epochs`.

    Attributes:
        images: to read the images, or compute the feature maps, once.
        start: of each training, beside its epochs.
        epoch: of as many folds as are trained side by side.
        predict: to predict the test images with one model.
    """

    epochs: StrictInt
    images: StrictFloat
    start: StrictFloat
    epoch: StrictFloat
    predict: StrictFloat

    def train(self, epochs: int) -> float:
        """The seconds of the folds that are trained side by side; the images are read already."""
        return self.start + epochs * self.epoch

    def alone(self, epochs: int) -> float:
        """The seconds until the test images are predicted by one training."""
        return self.images + self.train(epochs) + self.predict


class Task(NamedTuple):
    """The sizes that costs depend on beside the arm."""

    folds: int
    beside: int  # folds that are trained side by side: a wave
    usual: int  # epochs of the user's config; arms from scratch may train more
    end: float  # seconds of a blend and of the report

    def enough(self, costs: Costs) -> int:
        """The epochs with which an arm is preferred to those after it, and another fold to more epochs."""
        return math.ceil(_ENOUGH * min(self.usual, costs.epochs))

    def rest(self, costs: Costs, done: int) -> float:
        """The seconds of all folds after `done` waves, and of the predictions."""
        waves = math.ceil(self.folds / self.beside) - done
        return waves * costs.train(costs.epochs) + self.folds * costs.predict


class Schedule(NamedTuple):
    """The plan of an autopilot.

    Attributes:
        first: the arm of the first submission, and its epochs.
        arms: those that are compared on the same folds, or the only one, with their epochs; none where only the first
            submission fits.
        steps: with seconds, for the dearest arms where the arm is not known before.
    """

    first: tuple[str, int]
    arms: dict[str, int]
    steps: list[tuple[str, float]]


def make_schedule(arms: Mapping[str, Costs], task: Task, *, budget: float) -> Schedule:
    """The plan that compares the most arms, so that all folds of two of them still fit into the budget.

    Where not even two arms fit, one gets all of the time: as many folds as can have most of its usual epochs, or one
    with as many as fit into four fifths of it. It depends on nothing but its arguments, so a later command makes
    it again.
    """
    usual = {name: min(task.usual, costs.epochs) for name, costs in arms.items()}
    name, fits = _most_trained(arms, _EARLY * budget, usual)
    first = name, max(1, fits)
    steps = [(f"first submission: {name}, epochs: {first[1]}", arms[name].alone(first[1]))]
    left = budget * (1 - MEASURING - _SPARE) - steps[0][1] - task.end
    able = [name for name, costs in arms.items() if costs.images + task.rest(costs, 0) <= _DEAREST * left]
    chosen, more = dict[str, int](), list[tuple[str, float]]()
    for count in range(len(able), 1, -1):
        more = _comparison({name: arms[name] for name in able[:count]}, task, first)
        if sum(seconds for _, seconds in more) <= left:
            chosen = {name: arms[name].epochs for name in able[:count]}
            break
    else:
        name, fits = _most_trained(arms, left, {name: task.enough(costs) for name, costs in arms.items()})
        images, predict = 0.0 if name == first[0] else arms[name].images, task.beside * arms[name].predict
        for waves in range(math.ceil(task.folds / task.beside), 0, -1):
            seconds = (left - images) / waves * (_LONE if waves == 1 else 1.0)
            fits = min(arms[name].epochs, int((seconds - predict - arms[name].start) / arms[name].epoch))
            if fits >= task.enough(arms[name]):
                break
        if fits < 1:
            return Schedule(first, {}, steps)
        text = f"{name}, folds: {min(task.folds, waves * task.beside)}, epochs: {fits}"
        chosen, more = {name: fits}, [(text, images + waves * (arms[name].train(fits) + predict))]
    end = left + task.end - sum(seconds for _, seconds in more)
    return Schedule(first, chosen, [*steps, *more, ("other arms, seeds, blends, a full fit, as they fit; report", end)])


def halved(count: int) -> int:
    """The number of arms, out of `count`, that a round of short trainings leaves."""
    return max(2, math.ceil(count / 2))


def short_of(epochs: int) -> int:
    """The epochs of a short training."""
    return max(1, round(_SHORT * epochs))


def _most_trained(arms: Mapping[str, Costs], seconds: float, enough: Mapping[str, int]) -> tuple[str, int]:
    """The first arm that trains `enough` epochs in so many seconds, or the largest share of them, with its epochs.

    Where none trains a whole epoch it is the cheapest, with 0 epochs.
    """
    fits = {name: max(0, min(each.epochs, int((seconds - each.alone(0)) / each.epoch))) for name, each in arms.items()}
    name = max(arms, key=lambda name: min(1.0, fits[name] / enough[name]))
    return (name, fits[name]) if fits[name] else (min(arms, key=lambda name: arms[name].alone(1)), 0)


def _comparison(arms: Mapping[str, Costs], task: Task, first: tuple[str, int]) -> list[tuple[str, float]]:
    """The steps until all folds of two arms are trained."""
    images = {name: 0.0 if name == first[0] else costs.images for name, costs in arms.items()}
    full = {name: 0.0 if (name, each.epochs) == first else each.train(each.epochs) for name, each in arms.items()}
    where = f"folds: {task.beside}"
    if len(arms) == 2:
        steps = [(f"{name}, {where}, epochs: {arms[name].epochs}", full[name] + images[name]) for name in arms]
    else:
        short = {name: short_of(costs.epochs) for name, costs in arms.items()}
        steps = [
            (f"{name}, {where}, epochs: {short[name]}", costs.train(short[name]) + images[name])
            for name, costs in arms.items()
        ]
        left = halved(len(arms))
        steps.append((f"the best {left} arms, {where}, all epochs", sum(sorted(full.values())[-left:])))
    finals = sorted(task.rest(costs, 1) for costs in arms.values())[-2:]
    return [*steps, ("the best arm and an unlike one, all folds; blend", sum(finals) + task.end)]
