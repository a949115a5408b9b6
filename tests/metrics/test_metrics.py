from __future__ import annotations

import math
from random import Random
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from numpy.typing import NDArray

from pipeline.config import MetricConfig
from pipeline.errors import ConfigError
from pipeline.metrics import ranking_metrics
from pipeline.metrics.label_table import per_label_table
from pipeline.metrics.registry import METRICS, get_metric
from pipeline.metrics.targets import Binary, Bits, Floats
from pipeline.thresholds.policies import fit_thresholds
from tests.thresholds.tables import Scored, decided, scored

quick = settings(deadline=None, max_examples=100)


def measure(name: str, targets: Binary, values: NDArray[Any]) -> float:
    return METRICS[name].function(targets, values).value


@quick
@given(decided())
def test_f1_macro_is_scikit_learns_over_the_labels_with_positives(pair: tuple[Bits, Bits]) -> None:
    targets, decisions = pair
    present = targets.any(axis=0)
    expected = reference.f1_score(targets, decisions, average=None, zero_division=0)
    value, per_label, left_out = METRICS["f1_macro"].function(targets, decisions)
    assert per_label is not None
    np.testing.assert_allclose(per_label, np.where(present, expected, np.nan), rtol=1e-12)
    assert left_out == tuple(np.flatnonzero(~present))
    assert value == pytest.approx(expected[present].mean() if present.any() else math.nan, nan_ok=True)


@quick
@given(decided())
def test_the_other_decision_metrics_are_scikit_learns(pair: tuple[Bits, Bits]) -> None:
    targets, decisions = pair
    by_row = {"average": "samples", "zero_division": 0}
    cells = targets.ravel(), decisions.ravel()
    assert measure("f1_micro", *pair) == pytest.approx(reference.f1_score(*cells, zero_division=0))
    assert measure("f1_samples", *pair) == pytest.approx(reference.f1_score(*pair, **by_row))
    assert measure("f2_samples", *pair) == pytest.approx(reference.fbeta_score(*pair, beta=2, **by_row))
    assert measure("accuracy_cells", *pair) == pytest.approx(reference.accuracy_score(*cells))
    assert measure("hamming", *pair) == pytest.approx(reference.hamming_loss(*pair))
    assert measure("accuracy_subset", *pair) == pytest.approx(reference.accuracy_score(*pair))
    per_label = METRICS["accuracy_cells"].function(*pair).per_label
    assert per_label is not None
    np.testing.assert_allclose(per_label, (targets == decisions).mean(axis=0), rtol=1e-12)


@quick
@given(scored())
def test_areas_are_scikit_learns_over_the_labels_that_have_them(table: Scored) -> None:
    targets, probabilities = table
    positives, negatives = targets.any(axis=0), ~targets.all(axis=0)
    for name, defined, area in (
        ("auc_macro", positives & negatives, reference.roc_auc_score),
        ("map", positives, reference.average_precision_score),
    ):
        value, per_label, left_out = METRICS[name].function(targets, probabilities)
        assert per_label is not None
        expected = np.full(defined.size, np.nan)
        for label in np.flatnonzero(defined):
            expected[label] = area(targets[:, label], probabilities[:, label])
        np.testing.assert_allclose(per_label, expected, rtol=1e-12)
        assert left_out == tuple(np.flatnonzero(~defined))
        assert value == pytest.approx(expected[defined].mean() if defined.any() else math.nan, nan_ok=True)


@quick
@given(decided(), st.sampled_from([0.5, 1.0, 1.5, 2.0]))
def test_f_of_any_beta_and_average_is_scikit_learns(pair: tuple[Bits, Bits], beta: float) -> None:
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
def test_an_empty_row_predicted_empty_counts_what_the_option_says(pair: tuple[Bits, Bits]) -> None:
    for empty in (0, 1):
        metric = get_metric(MetricConfig(name="f2_samples", empty=empty))
        theirs = reference.fbeta_score(*pair, beta=2, average="samples", zero_division=empty)
        # scikit-learn's zero_division also gives 1 where only one side is empty and the other's ratio is 0 / 0
        one_side = pair[0].any(axis=1) != pair[1].any(axis=1)
        if empty == 0 or not one_side.any():
            assert metric.function(*pair).value == pytest.approx(theirs)
        both = ~pair[0].any(axis=1) & ~pair[1].any(axis=1)
        zero = get_metric("f2_samples").function(*pair).value
        assert metric.function(*pair).value == pytest.approx(zero + empty * both.mean())


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")  # scikit-learn then gives 0, as we do
@quick
@given(decided())
def test_matthews_correlation_is_scikit_learns(pair: tuple[Bits, Bits]) -> None:
    targets, decisions = pair
    assert measure("mcc_micro", *pair) == pytest.approx(
        reference.matthews_corrcoef(targets.ravel(), decisions.ravel()), abs=1e-12
    )
    defined = targets.any(axis=0) & ~targets.all(axis=0)
    columns = np.flatnonzero(defined)
    expected = [reference.matthews_corrcoef(targets[:, k], decisions[:, k]) for k in columns]
    value, _, left_out = METRICS["mcc_macro"].function(*pair)
    assert value == pytest.approx(np.mean(expected) if expected else math.nan, nan_ok=True, abs=1e-12)
    assert left_out == tuple(np.flatnonzero(~defined))


@pytest.mark.parametrize("name", ["mcc_macro", "mcc_micro", "hamming", "f0.5_samples"])
@quick
@given(table=scored())
def test_a_threshold_sweep_follows_a_metric_with_a_criterion(name: str, table: Scored) -> None:
    metric = get_metric(name)
    sign = 1.0 if metric.greater_is_better else -1.0

    def value_at(threshold: float) -> float:
        return sign * metric.function(table[0], table[1] >= threshold).value

    fitted = float(fit_thresholds("global", metric, *table)[0])
    best = max(value_at(threshold) for threshold in [*np.unique(table[1]).tolist(), 1.1])
    assert value_at(fitted) == pytest.approx(best, nan_ok=True, abs=1e-12)


def test_matthews_correlation_does_not_overflow() -> None:
    targets = np.tile(np.array([[1], [0]], np.uint8), (100_000, 5))
    assert measure("mcc_micro", targets, targets) == pytest.approx(1.0)


@quick
@given(scored())
def test_auc_weighted_weighs_labels_by_their_positives(table: Scored) -> None:
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
        # beside a column of negatives below all, because scikit-learn refuses a single label
        wide = np.insert(targets, 0, 0, axis=1), np.insert(probabilities, 0, -1.0, axis=1)
        expected = reference.label_ranking_average_precision_score(*wide, sample_weight=positives)
    value, per_label, left_out = METRICS["lwlrap"].function(*table)
    assert value == pytest.approx(expected, nan_ok=True)
    assert left_out == tuple(np.flatnonzero(~targets.any(axis=0)))
    assert per_label is not None


def average_precision_at(targets: Bits, scores: Floats, k: int) -> float:
    """Kaggle's apk restated: the precision at each hit among the k best, over the hits there could be."""
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


@quick
@given(scored(), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_labels_does_not_matter(table: Scored, random: Random) -> None:
    rows, columns = (random.sample(range(size), size) for size in table[0].shape)
    for metric in METRICS.values():
        targets, values = table[0], table[1]
        if metric.takes == "decisions":
            values = (values >= 0.5).astype(np.uint8)
        before = metric.function(targets, values).value
        after = metric.function(targets[rows][:, columns], values[rows][:, columns]).value
        assert after == pytest.approx(before, nan_ok=True), metric.name


def voc_by_definition(targets: Bits, scores: Floats) -> float:
    """At each distinct score one point (recall, precision); each step of recall weighs the best precision onward."""
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
    # Precision is 1/2 at the first positive and 2/3 at the second, which the envelope carries back to the first.
    assert measure("map", targets, probabilities) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert measure("map_voc", targets, probabilities) == pytest.approx(2 / 3)


@quick
@given(scored())
def test_log_loss_is_scikit_learns_over_all_cells(table: Scored) -> None:
    targets, probabilities = table
    probabilities = np.clip(probabilities, 1e-9, 1 - 1e-9)  # scikit-learn clips elsewhere
    expected = reference.log_loss(targets.ravel(), probabilities.ravel(), labels=[0, 1])
    value, per_label, left_out = METRICS["log_loss"].function(targets, probabilities)
    assert per_label is not None
    assert value == pytest.approx(expected, rel=1e-6)
    assert per_label.mean() == pytest.approx(value)
    assert left_out == ()


@pytest.mark.parametrize(("target", "probability"), [(1, 0.0), (0, 1.0)])
def test_a_certain_mistake_costs_what_the_clip_says(target: int, probability: float) -> None:
    wrong = np.array([[target]], np.uint8), np.array([[probability]])
    assert measure("log_loss", *wrong) == pytest.approx(-math.log(1e-15))


@pytest.mark.parametrize("name", ["f1_macro", "auc_macro", "map", "map_voc"])
def test_a_label_without_positives_is_left_out_and_listed(name: str) -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((40, 3)) < 0.4).astype(np.uint8)
    probabilities = rng.random((40, 3))
    values = probabilities if METRICS[name].takes == "probabilities" else (probabilities > 0.5).astype(np.uint8)
    without = METRICS[name].function(targets, values)
    widened = METRICS[name].function(np.insert(targets, 1, 0, axis=1), np.insert(values, 1, 1, axis=1))
    assert widened.value == without.value
    assert without.left_out == ()
    assert widened.left_out == (1,)
    assert widened.per_label is not None
    assert np.flatnonzero(np.isnan(widened.per_label)).tolist() == [1]


@pytest.mark.parametrize("name", ["f1_macro", "auc_macro", "map", "map_voc"])
def test_a_mean_over_no_label_is_nan(name: str) -> None:
    targets = np.zeros((3, 2), np.uint8)
    values: NDArray[Any] = np.zeros((3, 2)) if METRICS[name].takes == "probabilities" else targets
    value, _, left_out = METRICS[name].function(targets, values)
    assert math.isnan(value)
    assert left_out == (0, 1)


@quick
@given(scored(), decided())
def test_booleans_and_single_floats_count_like_their_equals(table: Scored, pair: tuple[Bits, Bits]) -> None:
    targets, probabilities = table
    for metric in METRICS.values():
        if metric.takes == "decisions":
            values = metric.function(*pair), metric.function(pair[0].astype(bool), pair[1].astype(bool))
        else:
            single = probabilities.astype(np.float32)
            values = metric.function(targets, single), metric.function(targets, single.astype(np.float64))
        assert values[0].value == pytest.approx(values[1].value, rel=0, abs=0, nan_ok=True)


@quick
@given(scored())
def test_the_table_of_labels_agrees_with_the_metrics(table: Scored) -> None:
    targets, probabilities = table
    decisions = (probabilities >= 0.5).astype(np.uint8)
    figures = per_label_table(targets, probabilities, decisions)
    for name, column, values in (
        ("f1_macro", figures.f1, decisions),
        ("map", figures.average_precision, probabilities),
        ("auc_macro", figures.auc, probabilities),
    ):
        np.testing.assert_array_equal(column, METRICS[name].function(targets, values).per_label)
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


def test_the_truth_scores_better_than_its_opposite() -> None:
    """In the direction that each metric states."""
    targets = np.array([[1, 0], [0, 1], [1, 1]], np.uint8)
    for metric in METRICS.values():
        kind = np.float64 if metric.takes == "probabilities" else np.uint8
        right, wrong = (metric.function(targets, values.astype(kind)).value for values in (targets, 1 - targets))
        assert (right > wrong) if metric.greater_is_better else (right < wrong), metric.name


GOOD = np.array([[1, 0], [0, 1]], np.uint8)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("targets", "values", "complaint"),
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
def test_tables_that_are_no_targets_are_refused(name: str, targets: Bits, values: NDArray[Any], complaint: str) -> None:
    metric = METRICS[name]
    with pytest.raises(ValueError, match=complaint):
        metric.function(targets, values.astype(np.float64) if metric.takes == "probabilities" else values)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1, 1.1])
def test_values_of_the_wrong_kind_are_refused(bad: float) -> None:
    broken = np.array([[0.5, 0.5], [bad, 0.5]])
    for metric in METRICS.values():
        if metric.takes == "probabilities":
            for values in (broken, GOOD):
                with pytest.raises(ValueError, match=r"probabilities in \[0, 1\]"):
                    metric.function(GOOD, values)
        else:
            with pytest.raises(ValueError, match="0/1 integers or booleans"):
                metric.function(GOOD, broken)


@pytest.mark.parametrize("name", ["lwlrap", "map@3", "log_loss"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_tables_are_scored_block_by_block_with_the_same_digits(
    name: str, order: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    targets = np.where(rng.random((40, 6)) < 0.1, np.nan, rng.random((40, 6)) < 0.3)
    probabilities = rng.random((40, 6)).round(1)
    expected = get_metric(name).function(targets, probabilities)
    monkeypatch.setattr(ranking_metrics, "_BLOCK_CELLS", 50)
    monkeypatch.setattr(ranking_metrics, "_BLOCK_LABELS", 4)
    found = get_metric(name).function(np.array(targets, order=order), np.array(probabilities, order=order))
    assert found.value == expected.value
    np.testing.assert_array_equal(found.per_label, expected.per_label)
