from __future__ import annotations

import numpy as np
import pytest

from pipeline.thresholds.policies import quantile_threshold
from pipeline.thresholds.transfer import FEWEST_ROWS, rates, transferred


def test_rates_count_known_cells_only() -> None:
    decisions = np.array([[1, 0], [1, 1], [0, 1], [1, 1]], np.uint8)
    known = np.array([[1, 0], [1, 1], [1, 0], [0, 0]], np.bool_)
    assert rates(decisions).tolist() == [0.75, 0.75]
    assert rates(decisions, known).tolist() == [2 / 3, 1.0]


def test_the_rate_stays_where_the_variance_shrinks() -> None:
    rng = np.random.default_rng(0)
    out_of_fold = rng.random((1000, 3))
    test = 0.5 + (rng.random((4000, 3)) - 0.5) / 3  # less variance, as in a mean of models
    thresholds = np.array([0.9, 0.7, 0.2])
    moved = transferred("rate", thresholds, out_of_fold, test)
    np.testing.assert_allclose((test >= moved).mean(axis=0), (out_of_fold >= thresholds).mean(axis=0), atol=2e-4)
    assert transferred("value", thresholds, out_of_fold, test) is thresholds


def test_a_label_that_is_never_predicted_stays_so() -> None:
    rng = np.random.default_rng(1)
    thresholds = np.array([np.nextafter(1.0, 2.0), 0.9])
    test = np.ones((500, 2))
    moved = transferred("rate", thresholds, rng.random((300, 2)) * 0.8, test)
    assert not (test >= moved).any()


def test_few_rows_keep_the_thresholds() -> None:
    thresholds, few = np.array([0.5]), np.full((FEWEST_ROWS - 1, 1), 0.2)
    assert transferred("rate", thresholds, np.full((9, 1), 0.9), few) is thresholds


@pytest.mark.parametrize(
    ("scores", "count", "expected"),
    [([0.2, 0.8, 0.6], 1, 0.7), ([0.2, 0.8], 0, 0.9), ([0.2, 0.8], 2, 0.1), ([0.5, 0.5, 0.1], 1, 0.5)],
)
def test_a_quantile_threshold_lies_between_two_scores(scores: list[float], count: int, expected: float) -> None:
    assert quantile_threshold(np.array(scores), count) == pytest.approx(expected)
