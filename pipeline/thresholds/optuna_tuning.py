"""Numbers tuned by Optuna, where no exact method finds the best ones: thresholds by label, the strength of a pull."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import optuna

from pipeline.metrics.targets import Floats


def tune(start: Floats, judge: Callable[[Floats], float], *, reach: float, trials: int) -> Floats:
    """Numbers (D,) that `judge` finds at least as good as `start`, the best of some trials of TPE.

    The first trial is `start` itself, so that the result is never worse; the sampler's seed is fixed, so that it is
    always the same.

    Args:
        start: (D,) any finite numbers, such as logits.
        judge: what is to be large.
        reach: how far a number may move from its start, either way.
        trials: how often `judge` is asked.
    """
    names = [str(place) for place in range(start.size)]

    def moved(moves: dict[str, float]) -> Floats:
        return np.asarray(start + np.array([moves[name] for name in names]))

    def objective(trial: optuna.Trial) -> float:
        return judge(moved({name: trial.suggest_float(name, -reach, reach) for name in names}))

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
        study.enqueue_trial(dict.fromkeys(names, 0.0))
        study.optimize(objective, n_trials=trials)
    finally:
        optuna.logging.set_verbosity(verbosity)
    own = study.trials[0].value
    return start if own is not None and study.best_value <= own else moved(study.best_params)
