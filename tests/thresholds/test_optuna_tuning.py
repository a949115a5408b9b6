from __future__ import annotations

import numpy as np

from pipeline.metrics.targets import Floats
from pipeline.thresholds.fitting.optuna_tuning import tune


def test_tuned_numbers_are_better_than_the_start_and_always_the_same() -> None:
    best = np.array([-0.4, 0.6])

    def objective(numbers: Floats) -> float:
        return -float(np.abs(numbers - best).sum())

    tuned = tune(np.zeros(2), objective, reach=1.0, trials=100)
    assert objective(tuned) > objective(np.zeros(2)) / 2
    np.testing.assert_array_equal(tuned, tune(np.zeros(2), objective, reach=1.0, trials=100))


def test_numbers_stay_within_reach() -> None:
    tuned = tune(np.array([5.0]), lambda numbers: float(numbers[0]), reach=0.5, trials=30)
    assert 5.3 < tuned[0] <= 5.5


def test_the_start_is_returned_unchanged_if_it_is_the_best() -> None:
    start = np.array([0.1, 0.3])
    tuned = tune(start, lambda numbers: float((numbers == start).all()), reach=1.0, trials=20)
    np.testing.assert_array_equal(tuned, start)
