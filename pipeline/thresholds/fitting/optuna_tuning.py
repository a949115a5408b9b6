"""Optuna as an optimiser of a few numbers: thresholds in logits, or the strength of `shrunk`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.metrics.targets import Floats


def tune(start: Floats, objective: Callable[[Floats], float], *, reach: float, trials: int) -> Floats:
    """The numbers (D,) with the largest objective in some trials of TPE.

    The first trial is `start`, so the result is never worse; the seed is fixed, so it is always the same.

    Args:
        start: (D,) finite numbers.
        objective: the function to maximise, of numbers (D,); finite.
        reach: the largest move of a number from its start, up or down.
        trials: the number of calls of `objective`.
    """
    import optuna  # prediction does without it

    names = [str(place) for place in range(start.size)]

    def moved(moves: dict[str, float]) -> Floats:
        return np.asarray(start + np.array([moves[name] for name in names]))

    def run_trial(trial: optuna.Trial) -> float:
        return objective(moved({name: trial.suggest_float(name, -reach, reach) for name in names}))

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
        study.enqueue_trial(dict.fromkeys(names, 0.0))
        study.optimize(run_trial, n_trials=trials)
    finally:
        optuna.logging.set_verbosity(verbosity)
    first = study.trials[0].value
    return start if first is not None and study.best_value <= first else moved(study.best_params)
