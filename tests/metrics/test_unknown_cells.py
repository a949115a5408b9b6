"""Unknown cells: the prediction for one changes nothing, and the known cells are scored as if they were alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from pipeline.metrics.counts import count
from pipeline.metrics.label_table import per_label_table
from pipeline.metrics.registry import METRICS, Metric
from pipeline.metrics.targets import Floats, split_targets
from tests.thresholds.tables import by_metric, masked, quick, values_of

OVER_LABELS = ("f1_macro", "mcc_macro", "auc_macro", "map", "map_voc")
OVER_CELLS = ("f1_micro", "accuracy_cells", "hamming", "mcc_micro", "log_loss")
OVER_ROWS = ("f1_samples", "f2_samples", "accuracy_subset")


def value(name: str, targets: NDArray[Any], probabilities: Floats) -> float:
    return METRICS[name].function(targets, values_of(METRICS[name], probabilities)).value


@quick
@given(masked())
def test_targets_are_split_into_bits_and_known_cells(table: tuple[Floats, Floats]) -> None:
    targets, _ = table
    bits, known = split_targets(targets)
    assert bits.dtype == np.uint8
    np.testing.assert_array_equal(known, ~np.isnan(targets))
    np.testing.assert_array_equal(bits, [[float(cell >= 0.5) for cell in row] for row in targets])  # NaN is not
    for same in (bits, bits.astype(np.bool_), bits.astype(np.float32)):
        again, all_known = split_targets(same)
        np.testing.assert_array_equal(again, bits)
        assert all_known.all()


@by_metric(*METRICS.values())
@quick
@given(table=masked())
def test_the_prediction_for_an_unknown_cell_changes_nothing(metric: Metric, table: tuple[Floats, Floats]) -> None:
    targets, probabilities = table
    others = np.where(np.isnan(targets), 1.0 - probabilities, probabilities)
    before, after = (metric.function(targets, values_of(metric, scores)) for scores in (probabilities, others))
    assert after.value == pytest.approx(before.value, nan_ok=True)
    assert after.left_out == before.left_out


@pytest.mark.parametrize("name", OVER_LABELS)
@quick
@given(table=masked())
def test_each_label_is_scored_on_its_known_rows(name: str, table: tuple[Floats, Floats]) -> None:
    targets, probabilities = table
    per_label = METRICS[name].function(targets, values_of(METRICS[name], probabilities)).per_label
    assert per_label is not None
    for label, column in enumerate(targets.T):
        known = ~np.isnan(column)
        alone = math.nan
        if known.any():
            alone = value(name, (column[known] >= 0.5)[:, None], probabilities[known, label][:, None])
        assert per_label[label] == pytest.approx(alone, nan_ok=True)


@pytest.mark.parametrize("name", OVER_CELLS)
@quick
@given(table=masked())
def test_known_cells_are_scored_as_if_there_were_no_others(name: str, table: tuple[Floats, Floats]) -> None:
    targets, probabilities = table
    known = ~np.isnan(targets)
    alone = math.nan
    if known.any():
        alone = value(name, (targets[known] >= 0.5)[:, None], probabilities[known][:, None])
    assert value(name, targets, probabilities) == pytest.approx(alone, nan_ok=True)


@pytest.mark.parametrize("name", OVER_ROWS)
@quick
@given(table=masked())
def test_rows_are_scored_on_their_known_labels_and_left_out_without_any(
    name: str, table: tuple[Floats, Floats]
) -> None:
    targets, probabilities = table
    rows = [
        value(name, (row[~np.isnan(row)] >= 0.5)[None], scores[~np.isnan(row)][None])
        for row, scores in zip(targets, probabilities, strict=True)
        if not np.isnan(row).all()
    ]
    assert value(name, targets, probabilities) == pytest.approx(np.mean(rows) if rows else math.nan, nan_ok=True)


@by_metric(*METRICS.values())
def test_without_known_cells_there_is_no_value(metric: Metric) -> None:
    assert math.isnan(value(metric.name, np.full((3, 2), np.nan), np.full((3, 2), 0.7)))


@quick
@given(masked())
def test_the_label_table_ignores_unknown_rows(table: tuple[Floats, Floats]) -> None:
    targets, probabilities = table
    figures = per_label_table(targets, probabilities, (probabilities >= 0.5).astype(np.uint8))
    for label, column in enumerate(targets.T):
        known = ~np.isnan(column)
        if not known.any():
            assert figures.positives[label] == 0
            assert math.isnan(figures.precision[label])
            continue
        scores = probabilities[known, label][:, None]
        alone = per_label_table((column[known] >= 0.5)[:, None], scores, scores >= 0.5)
        for name in ("positives", "average_precision", "auc", "precision", "recall", "f1"):
            assert getattr(figures, name)[label] == pytest.approx(getattr(alone, name)[0], nan_ok=True)


def test_unknown_cells_are_in_no_count() -> None:
    bits, known = split_targets(np.array([[1.0, np.nan], [0.0, 1.0]]))
    counts = count(bits, np.ones((2, 2), np.uint8), "row", known)
    assert [field.tolist() for field in map(np.asarray, counts)] == [[1, 1], [1, 2], [1, 1], [1, 2]]
