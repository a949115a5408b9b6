"""Blends of members: methods and weights against independent references, on simulated members."""

from __future__ import annotations

import runpy

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from pipeline.metrics.registry import METRICS
from pipeline.metrics.targets import Floats
from pipeline.prediction import blend_weights, blending
from pipeline.prediction.blend_weights import WEIGHTS
from pipeline.prediction.blending import MEANS, Blend, fit_blend, member_logits
from tests.conftest import PROJECT

SIMULATED = runpy.run_path(str(PROJECT / "benchmarks/blending.py"))
competition, folds_of = SIMULATED["competition"], SIMULATED["folds_of"]
play, shifted_twins = SIMULATED["play"], SIMULATED["shifted_twins"]


def equal(mean: str, labels: int, members: int) -> Blend:
    return Blend(mean, "equal", np.full((labels, members), 1 / members))


def test_of_shifted_twins_the_chosen_blend_is_near_the_best_possible() -> None:
    train, fresh = (shifted_twins(np.random.default_rng(seed), rows) for seed, rows in ((0, 800), (1, 8_000)))
    logits, fresh_logits = member_logits(train.tables), member_logits(fresh.tables)
    metric = METRICS["auc_macro"]
    fit = fit_blend(metric, train.targets, logits, folds_of(800))
    chosen, mean = (
        metric.function(fresh.targets, each.apply(logits, fresh_logits)).value
        for each in (fit.blend, equal("probability", 10, 2))
    )
    best = 0.9452  # Phi(1.6)
    assert chosen > best - 0.01
    assert mean < best - 0.03
    assert fit.fold_methods == ((fit.blend.mean, fit.blend.kind),) * 5
    assert fit.alone == pytest.approx(0.871, abs=0.02)
    assert fit.left_out == pytest.approx(fit.alone[::-1], abs=1e-3)


@pytest.mark.parametrize("mean", MEANS)
def test_a_row_is_answered_alone_and_equal_members_are_their_own_mean(mean: str) -> None:
    train, fresh, _ = competition(3)
    logits, others = member_logits(train.tables[:2]), member_logits(fresh.tables[:2])[:, :, :50]
    blend = equal(mean, logits.shape[0], 2)
    whole = blend.apply(logits, others)
    np.testing.assert_allclose(blend.apply(logits, others[:, :, 7:9]), whole[7:9], rtol=1e-6)
    twice = logits[:, [0, 0]]
    np.testing.assert_allclose(blend.apply(twice, twice), train.tables[0], atol=1e-5)


def correlation(weights: Floats, spread: Floats, along: Floats) -> float:
    return float(along @ weights / np.sqrt(weights @ spread @ weights))


@pytest.mark.parametrize("seed", range(5))
def test_weights_maximise_the_correlation_with_the_target(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = rng.normal(size=300)
    members = np.stack([target + noise * rng.normal(size=300) for noise in (1.0, 1.5, 3.0, 9.0)])
    spread, along = np.cov(members), (members - members.mean(axis=1, keepdims=True)) @ (target - target.mean()) / 299
    found = minimize(
        lambda w: -correlation(w, spread, along),
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    weights = blend_weights._simplex(spread, along)
    assert weights == pytest.approx(found.x, abs=2e-3)
    greedy = blend_weights._greedy(spread, along)
    assert greedy.sum() == pytest.approx(1.0)
    assert correlation(greedy, spread, along) > 0.9 * correlation(weights, spread, along)
    assert greedy[0] > greedy[3]


@pytest.mark.parametrize("kind", WEIGHTS)
def test_the_weights_of_a_part_do_not_see_its_targets(kind: str) -> None:
    train, _, _ = competition(4)
    parts, logits = folds_of(len(train.targets)), member_logits(train.tables)
    tables = []
    for flipped in (False, True):
        bits = np.where((parts == 0)[:, None] & flipped, 1 - train.targets, train.targets).astype(np.uint8)
        known = np.ones(len(bits), np.bool_)
        sums = np.stack([blend_weights.product_sums(rows, bits[:, k], known, parts) for k, rows in enumerate(logits)])
        tables.append(blending._cross_fitted(("logit", kind), logits, sums, parts, logits))
    np.testing.assert_allclose(tables[0][parts == 0], tables[1][parts == 0], rtol=1e-5)
    if kind != "equal":
        assert not np.allclose(tables[0][parts == 1], tables[1][parts == 1], rtol=1e-5)


def test_unknown_cells_constant_members_and_rare_labels_give_finite_weights() -> None:
    train, _, _ = competition(5)
    rows = 300
    targets = train.targets[:rows].astype(np.float32)
    targets[::3, 0], targets[:, 1] = np.nan, 0.0
    tables = [
        *(table[:rows] for table in train.tables[:2]),
        np.full((rows, targets.shape[1]), 0.5),
        np.ones_like(targets),
    ]
    logits = member_logits([np.asarray(table, np.float64) for table in tables])
    fit = fit_blend(METRICS["map"], targets, logits, folds_of(rows), groups=np.arange(rows) // 3)
    assert fit.blend.weights.sum(axis=1) == pytest.approx(1.0)
    assert fit.blend.weights.min() >= 0
    assert np.isfinite(fit.probabilities).all()
    assert 0 <= fit.probabilities.min() <= fit.probabilities.max() <= 1
    changed = np.where(np.isnan(targets), np.float32(np.nan), targets)
    moved = logits.copy()
    moved[0][:, ::3] += 1.0  # probabilities of unknown cells
    again = fit_blend(METRICS["map"], changed, moved, folds_of(rows), groups=np.arange(rows) // 3)
    assert again.scores["probability", "equal"] == pytest.approx(fit.scores["probability", "equal"])


def test_parts_that_chose_another_method_are_put_on_the_scale_of_the_chosen_one() -> None:
    rng = np.random.default_rng(0)
    table = rng.random((200, 3))
    rows = np.arange(200) < 50
    np.testing.assert_allclose(blending._on_scale_of(table, expit(5 * table), rows), table[rows], atol=1e-9)


def test_a_blend_is_not_worse_than_the_equal_mean_on_fresh_rows() -> None:
    outcomes = [play(seed) for seed in (1, 2, 3, 5)]
    assert all(each.gain >= -each.error for each in outcomes)
    assert abs(np.mean([each.bias for each in outcomes])) < 0.03
