from __future__ import annotations

import numpy as np

from pipeline.evaluation.arrays import Floats
from pipeline.search.thresholds import tune_thresholds


def test_tuned_thresholds_are_better_where_the_start_is_not_the_best() -> None:
    best = np.array([0.4, 0.6])

    def judge(thresholds: Floats) -> float:
        return -float(np.abs(thresholds - best).sum())

    tuned = tune_thresholds(np.array([0.5, 0.5]), judge)
    assert judge(tuned) > judge(np.array([0.5, 0.5])) / 2
    np.testing.assert_array_equal(tuned, tune_thresholds(np.array([0.5, 0.5]), judge))


def test_the_best_start_is_given_back_as_it_is() -> None:
    start = np.array([np.nextafter(1.0, 2.0), 0.3])
    np.testing.assert_array_equal(tune_thresholds(start, lambda thresholds: float((thresholds == start).all())), start)
