"""Plans an autopilot: which arms are trained, for how many epochs, and the seconds of each step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import StrictBool, StrictFloat, StrictInt, StrictStr

FIRST = 0.1
"""The share of the budget within which the first submission is written."""

_SPARE = 0.1  # of the budget, for steps that take longer than measured
_SHARES = (1.0, 0.7, 0.5)  # of the epochs of an arm, where several are compared
_LONE_SHARES = (*_SHARES, 0.35, 0.25, 0.15, 0.1, 0.05, 0.0)  # where the budget is enough for one arm; 0: one epoch
_SHORT = 0.25  # of the epochs, in a first round


@dataclass(frozen=True)
class Costs:
    """The seconds of an arm on this machine, in its usual setting of `epochs`.

    Attributes:
        images: to read the images, or compute the feature maps, once.
        start: of each training of a fold, beside its epochs.
        epoch: of a fold.
        predict: to predict the test images with one model.
    """

    epochs: StrictInt
    images: StrictFloat
    start: StrictFloat
    epoch: StrictFloat
    predict: StrictFloat

    def fold(self, epochs: int) -> float:
        """The seconds of a fold; the images are read already."""
        return self.start + epochs * self.epoch

    def share(self, share: float) -> int:
        """That share of the epochs, at least 1."""
        return max(1, round(share * self.epochs))


class Task(NamedTuple):
    """The sizes that costs depend on beside the arm."""

    folds: int
    beside: int  # folds that are trained at the same time
    blend: float  # seconds to fit and write a blend

    def rest(self, costs: Costs, epochs: int, done: int) -> float:
        """The seconds of all folds of an arm after `done` ones, and of their predictions."""
        waves = math.ceil((self.folds - done) / self.beside)
        return waves * costs.fold(epochs) + self.folds * costs.predict


class Step(NamedTuple):
    """A step of a plan."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Schedule:
    """The plan of an autopilot.

    Attributes:
        first: the arm of the first submission; it trains `first_epochs` epochs of fold 0.
        epochs: of each arm that is trained; arms that the budget cannot afford are left out.
        short: whether a first round of short trainings halves the arms.
        finals: arms that train all folds: 2, which are blended, or 1, or 0 where only the first submission fits.
        seeds: further trainings of all folds of the best arm that fit, each with another seed.
        steps: with seconds, for the dearest arms where the arm is not known before.
    """

    first: StrictStr
    first_epochs: StrictInt
    epochs: dict[StrictStr, StrictInt]
    short: StrictBool
    finals: StrictInt
    seeds: StrictInt
    steps: tuple[Step, ...]


def make_schedule(arms: Mapping[str, Costs], task: Task, *, budget: float, spent: float) -> Schedule:
    """The plan with the most epochs and arms that fits into the budget.

    Args:
        arms: by name, the most important one first.
        task: the number of folds, and so on.
        budget: seconds in total.
        spent: of these, before the first step.
    """
    first, first_epochs = _first(arms, FIRST * budget - spent)
    begin = Step(f"first submission: {first}, {_epochs(first_epochs)} of fold 0", _alone(arms[first], first_epochs))
    left = budget * (1 - _SPARE) - spent - begin.seconds
    for epochs, short, finals in _options(arms, task, left):
        steps = _steps(arms, task, epochs, short=short, finals=finals, done=(first, first_epochs))
        used = sum(step.seconds for step in steps)
        if used <= left:
            dearest = max(task.rest(arms[name], epochs[name], 0) for name in epochs) + task.blend
            seeds = int((left - used) / dearest)
            more = [
                Step(f"all folds of the best arm with seed {number + 1}; blend", dearest) for number in range(seeds)
            ]
            return Schedule(first, first_epochs, epochs, short, finals, seeds, (begin, *steps, *more))
    return Schedule(first, first_epochs, {}, short=False, finals=0, seeds=0, steps=(begin,))


def halved(count: int) -> int:
    """The number of arms, out of `count`, that a round of short trainings leaves."""
    return max(2, math.ceil(count / 2))


def short_of(epochs: int) -> int:
    """The epochs of a short training."""
    return max(1, round(_SHORT * epochs))


def _first(arms: Mapping[str, Costs], seconds: float) -> tuple[str, int]:
    """The arm that trains the largest share of its epochs in so many seconds; the cheapest where none trains one."""

    def affords(costs: Costs) -> int:
        return min(costs.epochs, int((seconds - _alone(costs, 0)) / costs.epoch))

    name = max(arms, key=lambda name: (affords(arms[name]) / arms[name].epochs, -_alone(arms[name], 1)))
    if affords(arms[name]) < 1:
        name = min(arms, key=lambda name: _alone(arms[name], 1))
    return name, max(1, affords(arms[name]))


def _alone(costs: Costs, epochs: int) -> float:
    return costs.images + costs.fold(epochs) + costs.predict


def _options(arms: Mapping[str, Costs], task: Task, seconds: float) -> Iterator[tuple[dict[str, int], bool, int]]:
    """Epochs of arms, whether there is a short round, and the number of finals: the best first.

    An arm that would take more than half of the time alone, with half of its epochs, is not compared with others.
    """
    able = [
        name
        for name, costs in arms.items()
        if costs.images + task.rest(costs, costs.share(min(_SHARES)), 0) <= 0.5 * seconds
    ]
    for share in _SHARES:
        for count in range(len(able), 1, -1):
            epochs = {name: arms[name].share(share) for name in able[:count]}
            yield epochs, False, 2
            if count > 2:
                yield epochs, True, 2
    for name, costs in arms.items():
        for share in _LONE_SHARES:
            yield {name: costs.share(share)}, False, 1


def _steps(
    arms: Mapping[str, Costs], task: Task, epochs: Mapping[str, int], *, short: bool, finals: int, done: tuple[str, int]
) -> list[Step]:
    """The steps after the first submission, for which an arm has trained fold 0 for some epochs: they are `done`."""
    images = {name: 0.0 if name == done[0] else arms[name].images for name in epochs}
    full = {name: arms[name].fold(count) for name, count in epochs.items() if (name, count) != done}
    steps = []
    if short:
        rounds = {name: arms[name].fold(short_of(epochs[name])) + images[name] for name in epochs}
        steps += [Step(f"{name}: {_epochs(short_of(epochs[name]))} of fold 0", rounds[name]) for name in epochs]
        left = halved(len(epochs))
        steps.append(Step(f"the best {left} arms: all epochs of fold 0", _dearest(full.values(), left)))
    else:
        steps += [Step(f"{name}: {_epochs(epochs[name])} of fold 0", full[name] + images[name]) for name in full]
    rests = [task.rest(arms[name], count, 1) for name, count in epochs.items()]
    which = "the best two unlike arms" if finals == 2 else next(iter(epochs))
    steps.append(Step(f"{which}: the other folds, predictions", _dearest(rests, finals)))
    return [*steps, *([Step("blend of both", task.blend)] if finals == 2 else [])]


def _dearest(seconds: Iterable[float], count: int) -> float:
    return sum(sorted(seconds, reverse=True)[:count])


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"
