"""Thresholds tuned by Optuna, for metrics whose best ones no exact method finds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import optuna

from pipeline.evaluation.arrays import Floats

TRIALS = 200
_REACH = 1.0  # how far, in logits, a threshold may move from its start
_EDGE = 1e-6  # thresholds are kept this far from 0 and 1, for their logits


def tune_thresholds(start: Floats, judge: Callable[[Floats], float]) -> Floats:
    """Thresholds (K,) that `judge` finds at least as good as `start`, the best of 200 trials of TPE.

    Each trial moves the logits of all thresholds by up to 1 either way. The first one moves none, so that the result
    is never worse; the sampler's seed is fixed, so that it is always the same.

    Args:
        start: (K,) in [0, 1], or above 1 for a label that is never decided.
        judge: what is to be large.
    """
    kept = np.clip(start, _EDGE, 1.0 - _EDGE)
    logits = np.log(kept / (1.0 - kept))
    names = [f"label {label}" for label in range(start.size)]

    def moved(moves: dict[str, float]) -> Floats:
        steps = np.array([moves[name] for name in names])
        thresholds = 1.0 / (1.0 + np.exp(-(logits + steps)))
        return np.where(steps == 0.0, start, thresholds)

    def objective(trial: optuna.Trial) -> float:
        return judge(moved({name: trial.suggest_float(name, -_REACH, _REACH) for name in names}))

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
        study.enqueue_trial(dict.fromkeys(names, 0.0))
        study.optimize(objective, n_trials=TRIALS)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return moved(study.best_params) if study.best_value > judge(start) else start
