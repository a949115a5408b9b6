"""Prints the result of a search: the best trials, then each parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from pipeline.console import print_note, short
from pipeline.run.search_folder import SearchFolder

_SHOWN_TRIALS, _SHOWN_PARAMETERS = 5, 12


class TrialFacts(NamedTuple):
    """One trial of the study."""

    number: int
    state: str  # COMPLETE, PRUNED, FAIL, RUNNING or WAITING
    kind: str  # own values, sampled or retry
    score: float | None
    chosen: Mapping[str, Any]
    seconds: float | None
    failure: str | None


class ParameterFacts(NamedTuple):
    """The values of a parameter, and its importance."""

    name: str
    own: Any  # the config's own value
    best: Any  # the best trial's value
    good: str  # values of the best quarter of the complete trials
    importance: float | None  # share of the score's variance that it explains; None if unknown


class SearchFacts(NamedTuple):
    """A search, finished or not."""

    score_name: str
    greater_is_better: bool
    folds: tuple[int, ...]
    trials: tuple[TrialFacts, ...]
    best: TrialFacts
    parameters: tuple[ParameterFacts, ...]
    notes: tuple[str, ...]

    @property
    def own(self) -> TrialFacts | None:
        """The complete trial of the config's own values, if there is one."""
        own = (trial for trial in self.trials if trial.state == "COMPLETE" and trial.chosen == self.own_values)
        return next(own, None)

    @property
    def ranked(self) -> list[str]:
        """The parameters' names, the most important one first."""
        return [each.name for each in sorted(self.parameters, key=lambda each: -(each.importance or 0.0))]

    @property
    def own_values(self) -> dict[str, Any]:
        """The config's own value of each parameter."""
        return {parameter.name: parameter.own for parameter in self.parameters}


def print_search(console: Console, facts: SearchFacts) -> None:
    """Print the best trials and the config's own, then each parameter, then failures and notes."""
    states = [trial.state for trial in facts.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("COMPLETE", "PRUNED", "FAIL") if state in states)
    console.print(f"Search: {counts}; scored by {facts.score_name} on fold {', '.join(map(str, facts.folds))}")
    console.print(_trial_table(facts))
    console.print(_parameter_table(facts))
    for trial in facts.trials:
        if trial.state == "FAIL":
            print_note(console, f"trial {trial.number} failed: {trial.failure}")
    for note in facts.notes:
        print_note(console, note)


def _trial_table(facts: SearchFacts) -> Table:
    complete = [trial for trial in facts.trials if trial.state == "COMPLETE" and trial.score is not None]
    complete.sort(key=lambda trial: (trial.score or 0) * (-1 if facts.greater_is_better else 1))
    own = facts.own
    shown = complete[:_SHOWN_TRIALS] + [trial for trial in complete[_SHOWN_TRIALS:] if trial == own]
    names = [parameter.name for parameter in facts.parameters[:_SHOWN_PARAMETERS]]
    drawn = Table(title="The best trials (the score of the best one is optimistic)", title_justify="left")
    for name in ("rank", "trial", "score", "against own", "seconds"):
        drawn.add_column(name, justify="right")
    for name in names:
        drawn.add_column(name, justify="right")
    for trial in shown:
        against = "own values" if trial == own else _difference(trial, own)
        seconds = "-" if trial.seconds is None else f"{trial.seconds:.0f}"
        rank = str(complete.index(trial) + 1)
        cells = [rank, str(trial.number), f"{trial.score:.4f}", against, seconds]
        drawn.add_row(*cells, *(short(trial.chosen.get(name)) for name in names))
    return drawn


def _difference(trial: TrialFacts, own: TrialFacts | None) -> str:
    if own is None or own.score is None or trial.score is None:
        return "-"
    return f"{trial.score - own.score:+.4f}"


def _parameter_table(facts: SearchFacts) -> Table:
    drawn = Table(title="Parameters", title_justify="left")
    drawn.add_column("parameter")
    for name in ("importance", "own value", "best trial", "best quarter of trials"):
        drawn.add_column(name, justify="right")
    by_name = {parameter.name: parameter for parameter in facts.parameters}
    for parameter in [by_name[name] for name in facts.ranked[:_SHOWN_PARAMETERS]]:
        importance = "-" if parameter.importance is None else f"{parameter.importance:.0%}"
        own, best = short(parameter.own), short(parameter.best)
        drawn.add_row(parameter.name, importance, own, best, parameter.good)
    if len(by_name) > _SHOWN_PARAMETERS:
        drawn.caption = f"and {len(by_name) - _SHOWN_PARAMETERS} less important ones"
    return drawn


class LeftOut(NamedTuple):
    """The scores of a full run after a search, by the score of the search."""

    score_name: str
    searched: Mapping[int, float]  # fold: score, for the folds that the search used
    untouched: Mapping[int, float]


def print_found(console: Console, facts: SearchFacts, folder: SearchFolder) -> None:
    """Print the result of a search, and the files that hold it."""
    print_search(console, facts)
    console.print(f"best values: {folder.best}; every trial: {folder.trials}; figures beside them")


def print_left_out(console: Console, scores: LeftOut) -> None:
    """Print the scores of the best values, apart for the folds that the search did not use."""
    parts = [("searched (optimistic)", scores.searched), ("left out by the search", scores.untouched)]
    for name, folds in parts:
        if folds:
            mean = sum(folds.values()) / len(folds)
            each = "  ".join(f"fold {fold}: {score:.4f}" for fold, score in folds.items())
            console.print(f"{scores.score_name}, folds {name}: {mean:.4f}   {each}")
    if not scores.untouched:
        print_note(console, "the search used every fold, so each score here is optimistic")
