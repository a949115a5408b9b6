"""The posterior of private scores, and the picks by it."""

from __future__ import annotations

import runpy

import numpy as np
import pytest

from pipeline.metrics.posterior import Submissions, draw_private, pick
from tests.conftest import PROJECT

SIMULATED = runpy.run_path(str(PROJECT / "benchmarks/ledger.py"))
play, shares = SIMULATED["play"], SIMULATED["shares"]


def scores(expected: list[float], public: list[float], similarity: np.ndarray | None = None) -> Submissions:
    count = len(expected)
    alike = np.full((count, count), 0.5) + 0.5 * np.eye(count) if similarity is None else similarity
    return Submissions(np.array(expected), np.full(count, 0.02), np.array(public), alike, 0.25, 2_000.0, 300.0, 700.0)


def test_the_public_score_alone_gives_its_sampling_error() -> None:
    draws = draw_private(scores([np.nan], [0.8]))
    assert draws.mean() == pytest.approx(0.8, abs=0.002)
    assert draws.std() == pytest.approx(np.sqrt(0.25 * (1 / 300 + 1 / 700)), rel=0.05)


def test_both_scores_count_and_that_of_more_rows_counts_more() -> None:
    given = scores([0.80, 0.80, 0.83], [0.83, 0.80, 0.80])
    means = draw_private(given).mean(axis=0)
    assert means[2] > means[0] > means[1]
    reversed_rows = draw_private(given._replace(rows=100.0, public_rows=2_000.0)).mean(axis=0)
    assert reversed_rows[0] > reversed_rows[2]


def test_the_second_pick_is_unlike_the_first() -> None:
    alike = np.array([[1.0, 0.99, 0.3], [0.99, 1.0, 0.3], [0.3, 0.3, 1.0]])
    draws = draw_private(scores([0.80, 0.7995, 0.798], [0.80, 0.7995, 0.798], alike))
    assert pick(draws, 2) == [0, 2]
    assert sorted(pick(draws, 9)) == [0, 1, 2]


def test_simulated_competitions_are_covered_and_picked() -> None:
    covered, ranks = [], []
    for seed in range(12):
        given, _, private = play(seed)
        draws = draw_private(given)
        low, high = np.percentile(draws, [2.5, 97.5], axis=0)
        covered.append(np.mean((private >= low) & (private <= high)))
        ranks.append(shares(private, pick(draws, 2)))
    assert 0.85 < np.mean(covered) < 1.0
    assert np.mean(ranks) < 0.2
