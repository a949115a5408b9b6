"""The result of a study: facts on its trials, trials.csv and best.yaml."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from pipeline.console import short
from pipeline.files import write_csv, write_text
from pipeline.run.search_folder import SearchFolder
from pipeline.search.space import Parameter, diff_of, diff_text
from pipeline.search.study import SearchError, failure_of, kind_of
from pipeline.search.table import ParameterFacts, SearchFacts, TrialFacts
from pipeline.search.trial_score import TrialScore

FEWEST_SCORES = 4  # different scores of complete trials, to compare parameters
_OPTIMISTIC = (
    "the best of {count} scores on the same rows is optimistic; rely on the folds that the search left out, "
    "or compare cross-validations"
)


def search_facts(
    study: optuna.Study,
    parameters: Sequence[Parameter],
    *,
    own: dict[str, Any],
    trial_score: TrialScore,
    folds: Sequence[int],
    notes: Sequence[str],
) -> SearchFacts:
    """The facts of the study as it is now.

    Raises:
        SearchError: no trial is complete.
    """
    trials = tuple(_trial_facts(trial) for trial in study.get_trials(deepcopy=False))
    complete = [trial for trial in trials if trial.state == "COMPLETE" and trial.score is not None]
    if not complete:
        raise SearchError(
            "no trial of the search is complete", remedy="run it again: it continues; or raise search.timeout"
        )
    sign = 1 if trial_score.greater_is_better else -1
    ranked = sorted(complete, key=lambda trial: -sign * (trial.score or 0.0))
    importance = _importances(study)
    quarter = ranked[: max(2, -(-len(ranked) // 4))]
    described = tuple(
        ParameterFacts(
            parameter.name,
            own.get(parameter.name),
            ranked[0].chosen[parameter.name],
            _range_text([trial.chosen[parameter.name] for trial in quarter]),
            importance.get(parameter.name),
        )
        for parameter in parameters
    )
    finished = len([trial for trial in trials if trial.state in ("COMPLETE", "PRUNED")])
    return SearchFacts(
        score_name=trial_score.name,
        greater_is_better=trial_score.greater_is_better,
        folds=tuple(folds),
        trials=trials,
        best=ranked[0],
        parameters=described,
        notes=(*notes, _OPTIMISTIC.format(count=finished)),
    )


def write_result(folder: SearchFolder, facts: SearchFacts, parameters: Sequence[Parameter], *, command: str) -> None:
    """Write `trials.csv`, and `best.yaml` headed by `command` and the best score."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            "kind": trial.kind,
            "score": trial.score,
            "seconds": trial.seconds,
            "failure": trial.failure,
            **trial.chosen,
        }
        for trial in facts.trials
    ]
    write_csv(folder.trials, pd.DataFrame(rows))
    diff = diff_of(parameters, facts.best.chosen)
    own = facts.own
    gain = f"; the config's own values: {own.score:.4f}" if own is not None else ""
    finished = sum(trial.state in ("COMPLETE", "PRUNED") for trial in facts.trials)
    lines = [
        f"# The best of {finished} trials, to be put into the config; found by",
        f"#   {command}",
        f"# {facts.score_name} on fold {', '.join(map(str, facts.folds))}: {facts.best.score:.4f} "
        f"(optimistic, trial {facts.best.number}){gain}",
    ]
    scalars = [f"{key}={value}" for key, value in diff.items() if not isinstance(value, list | dict)]
    if len(scalars) == len(diff):
        lines += ["# The same on the command line:", f"#   {shlex.join(scalars)}"]
    write_text(folder.best, "\n".join(lines) + "\n" + diff_text(diff))


def _trial_facts(trial: FrozenTrial) -> TrialFacts:
    score = trial.value if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None
    return TrialFacts(
        number=trial.number,
        state=trial.state.name,
        kind=kind_of(trial),
        score=score,
        chosen=trial.params,
        seconds=trial.duration.total_seconds() if trial.duration is not None else None,
        failure=failure_of(trial) if trial.state is TrialState.FAIL else None,
    )


def _importances(study: optuna.Study) -> dict[str, float]:
    """Importances by fANOVA (Hutter et al. 2014); empty with too few complete trials of different scores."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len({trial.value for trial in complete}) < FEWEST_SCORES:
        return {}
    return dict(optuna.importance.get_param_importances(study, evaluator=importance_evaluator()))


def importance_evaluator() -> optuna.importance.BaseImportanceEvaluator:
    """The evaluator of importances, the same for the table and the figure."""
    return optuna.importance.FanovaImportanceEvaluator(seed=0)


def _range_text(values: Sequence[Any]) -> str:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return f"{short(min(values))} to {short(max(values))}"
    return ", ".join(sorted({str(value) for value in values}))
