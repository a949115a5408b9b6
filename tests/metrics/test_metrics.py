from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given
from numpy.typing import NDArray

from pipeline.config import MetricConfig
from pipeline.errors import ConfigError
from pipeline.metrics.label_table import per_label_table
from pipeline.metrics.registry import METRICS, Metric, get_metric
from pipeline.metrics.targets import Binary, Bits, Floats
from tests.thresholds.tables import Scored, by_metric, decided, quick, scored, values_of


def measure(name: str, targets: Binary, values: NDArray[Any]) -> float:
    return METRICS[name].function(targets, values).value


REFERENCES: dict[str, Callable[[Bits, Bits], float]] = {
    "f1_micro": lambda t, d: reference.f1_score(t.ravel(), d.ravel(), zero_division=0),
    "f1_samples": lambda t, d: reference.f1_score(t, d, average="samples", zero_division=0),
    "f2_samples": lambda t, d: reference.fbeta_score(t, d, beta=2, average="samples", zero_division=0),
    "accuracy_cells": lambda t, d: reference.accuracy_score(t.ravel(), d.ravel()),
    "hamming": reference.hamming_loss,
    "accuracy_subset": reference.accuracy_score,
    "mcc_micro": lambda t, d: reference.matthews_corrcoef(t.ravel(), d.ravel()),
}


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")  # scikit-learn then gives 0, as we do
@pytest.mark.parametrize("name", REFERENCES)
@quick
@given(pair=decided())
def test_decision_metrics_equal_scikit_learns(name: str, pair: tuple[Bits, Bits]) -> None:
    assert measure(name, *pair) == pytest.approx(REFERENCES[name](*pair), abs=1e-12)


@quick
@given(decided())
def test_accuracy_of_cells_has_a_value_per_label(pair: tuple[Bits, Bits]) -> None:
    per_label = METRICS["accuracy_cells"].function(*pair).per_label
    assert per_label is not None
    np.testing.assert_allclose(per_label, (pair[0] == pair[1]).mean(axis=0), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
@pytest.mark.parametrize(
    ("name", "area", "needs_negatives"),
    [
        ("f1_macro", lambda t, v: reference.f1_score(t, v, zero_division=0), False),
        ("mcc_macro", reference.matthews_corrcoef, True),
        ("auc_macro", reference.roc_auc_score, True),
        ("map", reference.average_precision_score, False),
    ],
)
@quick
@given(table=scored())
def test_means_over_labels_are_of_scikit_learns_values_where_these_are_defined(
    name: str, area: Callable[[Bits, NDArray[Any]], float], needs_negatives: bool, table: Scored
) -> None:
    targets, values = table[0], values_of(METRICS[name], table[1])
    defined = targets.any(axis=0) & ~(targets.all(axis=0) & needs_negatives)
    value, per_label, left_out = METRICS[name].function(targets, values)
    assert per_label is not None
    expected = np.full(defined.size, np.nan)
    for label in np.flatnonzero(defined):
        expected[label] = area(targets[:, label], values[:, label])
    np.testing.assert_allclose(per_label, expected, rtol=1e-12, atol=1e-12)
    assert left_out == tuple(np.flatnonzero(~defined))
    mean = expected[defined].mean() if defined.any() else math.nan
    assert value == pytest.approx(mean, nan_ok=True, abs=1e-12)


@quick
@given(decided(), st.sampled_from([0.5, 1.0, 1.5, 2.0]))
def test_f_of_any_beta_and_average_equals_scikit_learns(pair: tuple[Bits, Bits], beta: float) -> None:
    targets, decisions = pair
    expected = reference.fbeta_score(targets, decisions, beta=beta, average=None, zero_division=0)
    present, positives = targets.any(axis=0), targets.sum(axis=0)

    def ours(average: str) -> float:
        return get_metric(f"f{beta}_{average}").function(targets, decisions).value

    assert ours("macro") == pytest.approx(expected[present].mean() if present.any() else math.nan, nan_ok=True)
    weighted = np.average(expected, weights=positives) if present.any() else math.nan
    assert ours("weighted") == pytest.approx(weighted, nan_ok=True)
    for average in ("micro", "samples"):
        theirs = reference.fbeta_score(targets, decisions, beta=beta, average=average, zero_division=0)
        assert ours(average) == pytest.approx(theirs)


@quick
@given(decided())
def test_an_empty_row_predicted_empty_counts_the_option_empty(pair: tuple[Bits, Bits]) -> None:
    zero = get_metric("f2_samples").function(*pair).value
    both_empty = ~pair[0].any(axis=1) & ~pair[1].any(axis=1)
    one = get_metric(MetricConfig(name="f2_samples", empty=1)).function(*pair).value
    assert one == pytest.approx(zero + both_empty.mean())


def test_matthews_correlation_does_not_overflow() -> None:
    targets = np.tile(np.array([[1], [0]], np.uint8), (100_000, 5))
    assert measure("mcc_micro", targets, targets) == pytest.approx(1.0)


@quick
@given(scored())
def test_auc_weighted_weights_labels_by_their_positives(table: Scored) -> None:
    targets, probabilities = table
    per_label = METRICS["auc_macro"].function(*table).per_label
    assert per_label is not None
    defined = ~np.isnan(per_label)
    expected = math.nan
    if defined.any():
        expected = reference.roc_auc_score(targets[:, defined], probabilities[:, defined], average="weighted")
    assert measure("auc_weighted", *table) == pytest.approx(expected, nan_ok=True)


@quick
@given(scored())
def test_lwlrap_is_scikit_learns_ranking_precision_weighted_by_positives(table: Scored) -> None:
    targets, probabilities = table
    positives = targets.sum(axis=1)
    expected = math.nan
    if positives.any():
        # A column of negatives below all others, because scikit-learn refuses a single label.
        wide = np.insert(targets, 0, 0, axis=1), np.insert(probabilities, 0, -1.0, axis=1)
        expected = reference.label_ranking_average_precision_score(*wide, sample_weight=positives)
    value, per_label, left_out = METRICS["lwlrap"].function(*table)
    assert value == pytest.approx(expected, nan_ok=True)
    assert left_out == tuple(np.flatnonzero(~targets.any(axis=0)))
    assert per_label is not None


def average_precision_at(targets: Bits, scores: Floats, k: int) -> float:
    """Kaggle's apk restated: the precision at each hit among the k best, over the hits that are possible."""
    best = sorted(range(len(scores)), key=lambda label: -scores[label])[:k]
    hits, total = 0, 0.0
    for place, label in enumerate(best, start=1):
        if targets[label]:
            hits += 1
            total += hits / place
    return total / min(k, targets.sum()) if targets.any() else 0.0


@quick
@given(scored(), st.integers(1, 5))
def test_map_at_k_is_its_definition_in_loops(table: Scored, k: int) -> None:
    rows = [average_precision_at(*row, k) for row in zip(*table, strict=True)]
    assert get_metric(f"map@{k}").function(*table).value == pytest.approx(np.mean(rows))
    ones = get_metric(MetricConfig(name="map@k", k=k, empty=1)).function(*table).value
    assert ones == pytest.approx(np.mean(rows) + (~table[0].any(axis=1)).mean())


def voc_by_definition(targets: Bits, scores: Floats) -> float:
    """One point (recall, precision) for each distinct score; each step of recall has the best precision from it on."""
    points = []
    for threshold in sorted(set(scores), reverse=True):
        chosen = targets[scores >= threshold]
        points.append((chosen.sum() / targets.sum(), chosen.mean()))
    area, reached = 0.0, 0.0
    for recall, _ in points:
        area += (recall - reached) * max(precision for other, precision in points if other >= recall)
        reached = recall
    return float(area)


@quick
@given(scored())
def test_map_voc_is_its_definition_in_loops(table: Scored) -> None:
    targets, probabilities = table
    value, per_label, left_out = METRICS["map_voc"].function(targets, probabilities)
    assert per_label is not None
    present = targets.any(axis=0)
    for label in np.flatnonzero(present):
        expected = voc_by_definition(targets[:, label], probabilities[:, label])
        assert per_label[label] == pytest.approx(expected, rel=1e-12)
    assert left_out == tuple(np.flatnonzero(~present))
    assert value == pytest.approx(per_label[present].mean() if present.any() else math.nan, nan_ok=True)


def test_the_two_average_precisions_by_hand() -> None:
    targets = np.array([[0], [1], [1]], np.uint8)
    probabilities = np.array([[0.9], [0.8], [0.7]])
    # Precision is 1/2 at the first positive and 2/3 at the second; VOC takes 2/3 for both.
    assert measure("map", targets, probabilities) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert measure("map_voc", targets, probabilities) == pytest.approx(2 / 3)


@quick
@given(scored())
def test_log_loss_is_scikit_learns_over_all_cells(table: Scored) -> None:
    targets, probabilities = table
    probabilities = np.clip(probabilities, 1e-9, 1 - 1e-9)  # scikit-learn clips at another distance
    expected = reference.log_loss(targets.ravel(), probabilities.ravel(), labels=[0, 1])
    value, per_label, left_out = METRICS["log_loss"].function(targets, probabilities)
    assert per_label is not None
    assert value == pytest.approx(expected, rel=1e-6)
    assert per_label.mean() == pytest.approx(value)
    assert left_out == ()


@pytest.mark.parametrize(("target", "probability"), [(1, 0.0), (0, 1.0)])
def test_a_certain_mistake_costs_the_logarithm_of_the_clip(target: int, probability: float) -> None:
    wrong = np.array([[target]], np.uint8), np.array([[probability]])
    assert measure("log_loss", *wrong) == pytest.approx(-math.log(1e-15))


@by_metric(*METRICS.values())
@quick
@given(table=scored(), random=st.randoms(use_true_random=False))
def test_the_order_of_rows_and_labels_does_not_matter(metric: Metric, table: Scored, random: Random) -> None:
    rows, columns = (random.sample(range(size), size) for size in table[0].shape)
    targets, values = table[0], values_of(metric, table[1])
    before = metric.function(targets, values).value
    after = metric.function(targets[rows][:, columns], values[rows][:, columns]).value
    assert after == pytest.approx(before, nan_ok=True)


@pytest.mark.parametrize("name", ["f1_macro", "auc_macro", "map", "map_voc"])
def test_a_label_without_positives_changes_no_mean(name: str) -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((40, 3)) < 0.4).astype(np.uint8)
    values = values_of(METRICS[name], rng.random((40, 3)))
    without = METRICS[name].function(targets, values)
    widened = METRICS[name].function(np.insert(targets, 1, 0, axis=1), np.insert(values, 1, 1, axis=1))
    assert widened.value == without.value
    assert (without.left_out, widened.left_out) == ((), (1,))


@by_metric(*METRICS.values())
@quick
@given(table=scored())
def test_booleans_and_float32_count_as_equal_numbers(metric: Metric, table: Scored) -> None:
    targets, single = table[0], table[1].astype(np.float32)
    if metric.takes == "decisions":
        decisions = single >= 0.5
        values = metric.function(targets, decisions.astype(np.uint8)), metric.function(targets.astype(bool), decisions)
    else:
        values = metric.function(targets, single), metric.function(targets, single.astype(np.float64))
    assert values[0].value == pytest.approx(values[1].value, rel=0, abs=0, nan_ok=True)


@quick
@given(scored())
def test_the_label_table_agrees_with_the_metrics(table: Scored) -> None:
    targets, probabilities = table
    decisions = (probabilities >= 0.5).astype(np.uint8)
    figures = per_label_table(targets, probabilities, decisions)
    for name, column in (("f1_macro", figures.f1), ("map", figures.average_precision), ("auc_macro", figures.auc)):
        per_label = METRICS[name].function(targets, values_of(METRICS[name], probabilities)).per_label
        np.testing.assert_array_equal(column, per_label)
    np.testing.assert_array_equal(figures.positives, targets.sum(axis=0))
    for label in range(targets.shape[1]):
        columns = targets[:, label], decisions[:, label]
        for score, column in ((reference.precision_score, figures.precision), (reference.recall_score, figures.recall)):
            expected = score(*columns, zero_division=np.nan)
            np.testing.assert_allclose(column[label], expected, rtol=1e-12)


def test_a_metric_is_found_by_its_name() -> None:
    assert [get_metric(name).name for name in METRICS] == list(METRICS)
    with pytest.raises(ConfigError, match=r"unknown metric 'f1_marco'; did you mean 'f1_macro'\?") as caught:
        get_metric("f1_marco")
    assert all(name in caught.value.remedy for name in METRICS)


@by_metric(*METRICS.values())
def test_the_targets_score_better_than_their_opposite(metric: Metric) -> None:
    targets = np.array([[1, 0], [0, 1], [1, 1]], np.uint8)
    right, wrong = (
        metric.function(targets, values_of(metric, values.astype(np.float64))).value
        for values in (targets, 1 - targets)
    )
    assert (right > wrong) if metric.greater_is_better else (right < wrong)


GOOD = np.array([[1, 0], [0, 1]], np.uint8)


@by_metric(*METRICS.values())
@pytest.mark.parametrize(
    ("targets", "values", "message"),
    [
        (GOOD, GOOD[:1], "shape"),
        (GOOD[0], GOOD[0], r"\(N, K\)"),
        (GOOD[:0], GOOD[:0], r"\(N, K\)"),
        (GOOD * 1.5, GOOD, r"targets in \[0, 1\], NaN for unknown, got float64 of shape \(4,\) from 0.0 to 1.5"),
        (np.array([[-0.1, np.nan], [0, 1]]), GOOD, r"targets in \[0, 1\], .* from -0.1 to 1.0"),
        (GOOD.astype(str), GOOD, r"\(N, K\)"),
        (GOOD.astype(np.int8) * -1, GOOD, "only 0 and 1, got values from -1 to 0"),
        (GOOD * 2, GOOD, "only 0 and 1"),
    ],
)
def test_other_tables_than_targets_are_refused(
    metric: Metric, targets: Bits, values: NDArray[Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metric.function(targets, values.astype(np.float64) if metric.takes == "probabilities" else values)


@by_metric(*METRICS.values())
@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1, 1.1])
def test_values_of_the_wrong_kind_are_refused(metric: Metric, bad: float) -> None:
    broken = np.array([[0.5, 0.5], [bad, 0.5]])
    if metric.takes == "probabilities":
        for values in (broken, GOOD):
            with pytest.raises(ValueError, match=r"probabilities in \[0, 1\]"):
                metric.function(GOOD, values)
    else:
        with pytest.raises(ValueError, match="0/1 integers or booleans"):
            metric.function(GOOD, broken)


@pytest.mark.parametrize(("name", "copies"), [("lwlrap", (4500, 1)), ("map@3", (4500, 1)), ("log_loss", (1, 75))])
def test_a_large_table_of_copies_has_the_same_value_in_any_memory_layout(name: str, copies: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    targets = np.where(rng.random((40, 6)) < 0.1, np.nan, rng.random((40, 6)) < 0.3)
    probabilities = rng.random((40, 6)).round(1)
    large = np.tile(targets, copies), np.tile(probabilities, copies)
    found = get_metric(name).function(*large)
    assert found.value == pytest.approx(get_metric(name).function(targets, probabilities).value)
    assert get_metric(name).function(*map(np.asfortranarray, large)).value == found.value
