"""The study: its sampler and pruner, the settings that its trials share, and what is read from its trials."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from pipeline.config import SearchConfig
from pipeline.errors import PipelineError, RunError
from pipeline.search.space import Parameter, Values
from pipeline.seeds import stable_seed

DONE = (TrialState.COMPLETE, TrialState.PRUNED)
INTERRUPTED = "interrupted"
_FAILURES_IN_A_ROW = 10
_STARTUP_TRIALS = 5  # complete trials before a pruner compares

optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # failures are reported as events


class TimeUsed(Exception):  # noqa: N818 (not an error)
    """`train.time_budget` ended before the search; finished trials are saved."""


class SearchError(PipelineError):
    """A search cannot continue."""


def open_study(storage: RDBStorage, name: str, search: SearchConfig, *, maximize: bool, epochs: int) -> optuna.Study:
    """The study `name` of the database, created if there is none.

    Args:
        storage: the database.
        name: the name of the study in it.
        search: the search section of the config.
        maximize: whether a higher score is better.
        epochs: number of epochs of a trial, for the pruner.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize" if maximize else "minimize",
            pruner=build_pruner(search, epochs),
            load_if_exists=True,
        )


def begin_study(study: optuna.Study, settings: Mapping[str, Any], *, own: Values | None, where: str) -> None:
    """Store the settings of a new study and enqueue its first trial; refuse an old one with other settings.

    Args:
        study: new or begun.
        settings: the settings that all trials share, for their scores to be comparable.
        own: the config's own values, the first trial; None if they lie outside the space.
        where: the place of the study, for the message.

    Raises:
        RunError: the study was begun with other settings; each is named with its old and new value.
    """
    if "settings" not in study.user_attrs:
        if own is not None:
            study.enqueue_trial(dict(own), user_attrs={"kind": "own values"}, skip_if_exists=True)
        study.set_user_attr("settings", json.dumps(settings))
        return
    try:
        begun = dict(json.loads(study.user_attrs["settings"]))
    except (TypeError, ValueError):
        raise RunError(
            f"the search in {where} was not begun by this pipeline", remedy="give another --run NAME"
        ) from None
    changed = [key for key in sorted({*begun, *settings}) if begun.get(key) != settings.get(key)]
    if changed:
        lines = "\n".join(f"  - {key}: {begun.get(key)!r} in the search, {settings.get(key)!r} now" for key in changed)
        raise RunError(
            f"the search in {where} was begun with other settings\n{lines}",
            remedy="give another --run NAME, go back to the old values, or start over with --fresh",
        )


def finished_trials(study: optuna.Study) -> int:
    """The number of complete and pruned trials."""
    return len(study.get_trials(deepcopy=False, states=DONE))


def best_score(study: optuna.Study) -> float | None:
    """The best score of the complete trials, if there is one."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return study.best_value if complete else None


def build_sampler(search: SearchConfig, number: int) -> optuna.samplers.BaseSampler:
    """The sampler that `search.sampler` names, from trial `number` on.

    The number is part of the seed: otherwise each worker and each later command would try the same values.
    """
    seed = stable_seed("search", search.seed, number) % 2**32
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    startup = max(5, min(10, search.trials // 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=startup)


def build_pruner(search: SearchConfig, epochs: int) -> optuna.pruners.BasePruner:
    """The pruner that `search.pruner` names, for trials of `epochs` epochs."""
    if search.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=max(1, epochs // 4))
    if search.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=max(1, epochs // 9), max_resource=epochs)
    if search.pruner == "wilcoxon":
        return optuna.pruners.WilcoxonPruner(p_threshold=0.1)
    return optuna.pruners.NopPruner()


def suggest(trial: Trial, parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    """The trial's value of every parameter, by name."""
    return {parameter.name: _suggest(trial, parameter) for parameter in parameters}


def _suggest(trial: Trial, parameter: Parameter) -> Any:
    dimension = parameter.dimension
    if parameter.choices is not None:
        return trial.suggest_categorical(parameter.name, list(parameter.choices))
    assert dimension.low is not None  # a range has both
    assert dimension.high is not None
    if parameter.integer:
        step = int(dimension.step or 1)
        return trial.suggest_int(parameter.name, int(dimension.low), int(dimension.high), step=step, log=dimension.log)
    return trial.suggest_float(parameter.name, dimension.low, dimension.high, step=dimension.step, log=dimension.log)


def kind_of(trial: FrozenTrial) -> str:
    """`own values`, `sampled`, or `retry` for the second try of a trial whose process died."""
    return "retry" if "failed_trial" in trial.system_attrs else str(trial.user_attrs.get("kind", "sampled"))


def failure_of(trial: FrozenTrial) -> str:
    """The reason that a failed trial has no score."""
    return str(trial.user_attrs.get("failure", "its process died"))


def refuse_endless_failures(study: optuna.Study, _trial: FrozenTrial) -> None:
    """A callback of the study: raises SearchError if the last ten trials failed by their values."""
    last = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()][-_FAILURES_IN_A_ROW:]
    reasons = [trial.user_attrs.get("failure") for trial in last]
    if len(last) == _FAILURES_IN_A_ROW and not {None, INTERRUPTED} & {*reasons}:
        raise SearchError(
            f"the last {_FAILURES_IN_A_ROW} trials failed",
            got=f"trial {last[-1].number}: {reasons[-1]}",
            remedy="narrow search.space to values that train, then start over with --fresh",
        )
