from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from pipeline.metrics.counts import Unit, Value, accuracy, count, exact_match, f1, f2
from pipeline.metrics.targets import Floats, split_targets
from pipeline.thresholds import line_search
from tests.thresholds.tables import Scored, masked, scored

VALUES = {"f1": f1, "f2": f2, "accuracy": accuracy, "exact_match": exact_match}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@settings(deadline=None, max_examples=60)
@given(table=scored())
def test_a_sweep_knows_the_value_of_every_set_a_threshold_can_decide(value: Value, table: Scored) -> None:
    targets, scores = table
    highest_first = np.unique(scores)[::-1]
    decided = [np.zeros_like(targets), *((scores >= t).astype(np.uint8) for t in highest_first)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_search, "_BLOCK_CELLS", 5)  # so that these tables need several blocks
        by_row = line_search.sweep_units(targets, scores, np.ones(targets.shape, np.bool_), value)
    as_one = line_search.sweep_unit(targets.ravel(), scores.ravel(), value)
    cases: list[tuple[line_search.Sweep, Unit]] = [(by_row, "row"), (as_one, "table")]
    for result, unit in cases:
        expected = [value(count(targets, decisions, unit)).mean() for decisions in decided]
        np.testing.assert_array_equal(result.scores, highest_first)
        np.testing.assert_allclose(result.values, expected, rtol=0, atol=1e-14)


def test_rounding_does_not_break_a_plateau() -> None:
    assert 0.1 + 0.2 > 0.3
    values = np.array([0.0, 0.3, 0.1 + 0.2, 0.0])
    assert line_search.best_threshold(line_search.Sweep(np.array([0.8, 0.6, 0.4]), values)) == pytest.approx(
        (0.4 + 0.8) / 2
    )


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@settings(deadline=None, max_examples=60)
@given(table=masked())
def test_unknown_cells_are_in_no_unit(value: Value, table: tuple[Floats, Floats]) -> None:
    bits, known = split_targets(table[0])
    scores = table[1]
    highest_first = np.unique(scores[known])[::-1]
    decided = [np.zeros_like(bits), *((scores >= t).astype(np.uint8) for t in highest_first)]
    counted = known.any(axis=1)
    expected = [value(count(bits, decisions, "row", known))[counted].sum() for decisions in decided]
    values = line_search.sweep_units(bits, scores, known, value).values
    np.testing.assert_allclose(values, np.array(expected) / max(1, counted.sum()), rtol=0, atol=1e-14)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@settings(deadline=None, max_examples=100)
@given(table=masked())
def test_a_table_walked_through_in_parts_has_the_same_best_threshold(
    value: Value, table: tuple[Floats, Floats]
) -> None:
    bits, known = split_targets(table[0])
    complete = line_search.sweep_units(bits, table[1], known, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_search, "CELLS_AT_ONCE", 2)
        patch.setattr(line_search, "_SAMPLE", 7)
        in_parts = line_search.sweep_units(bits, table[1], known, value)
    assert in_parts.values.max() == pytest.approx(complete.values.max(), abs=1e-14)
    assert line_search.best_threshold(in_parts) == line_search.best_threshold(complete)
