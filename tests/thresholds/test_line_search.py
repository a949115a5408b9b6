from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from pipeline.metrics.counts import Value, accuracy, count, exact_match, f1, f2
from pipeline.metrics.targets import Floats, split_targets
from pipeline.thresholds.fitting import line_search
from pipeline.thresholds.fitting.line_search import Sweep, best_threshold, sweep_unit, sweep_units
from tests.thresholds.tables import masked, quick

VALUES = {"f1": f1, "f2": f2, "accuracy": accuracy, "exact_match": exact_match}
by_value = pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)


@by_value
@quick
@given(table=masked())
def test_a_sweep_has_the_value_of_every_set_that_a_threshold_can_decide(
    value: Value, table: tuple[Floats, Floats]
) -> None:
    (bits, known), scores = split_targets(table[0]), table[1]
    highest_first = np.unique(scores[known])[::-1]
    decided = [np.zeros_like(bits), *((scores >= t).astype(np.uint8) for t in highest_first)]
    counted = known.any(axis=1)
    by_row = [value(count(bits, decisions, "row", known))[counted].sum() for decisions in decided]
    swept = sweep_units(bits, scores, known, value)
    np.testing.assert_array_equal(swept.scores, highest_first)
    np.testing.assert_allclose(swept.values, np.array(by_row) / max(1, counted.sum()), rtol=0, atol=1e-14)
    as_one = sweep_unit(bits[known], scores[known], value)
    np.testing.assert_array_equal(as_one.scores, highest_first)
    expected = [value(count(bits, decisions, "table", known)) for decisions in decided]
    np.testing.assert_allclose(as_one.values, expected, rtol=0, atol=1e-14)


def test_rounding_does_not_break_a_plateau() -> None:
    assert 0.1 + 0.2 > 0.3
    values = np.array([0.0, 0.3, 0.1 + 0.2, 0.0])
    assert best_threshold(Sweep(np.array([0.8, 0.6, 0.4]), values)) == pytest.approx((0.4 + 0.8) / 2)


@by_value
@quick
@given(table=masked())
def test_a_table_swept_in_slices_has_the_same_best_threshold(value: Value, table: tuple[Floats, Floats]) -> None:
    bits, known = split_targets(table[0])
    complete = sweep_units(bits, table[1], known, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_search, "CELLS_AT_ONCE", 2)
        patch.setattr(line_search, "_SAMPLE", 7)
        patch.setattr(line_search, "_BLOCK_CELLS", 5)
        sliced = sweep_units(bits, table[1], known, value)
    assert sliced.values.max() == pytest.approx(complete.values.max(), abs=1e-14)
    assert best_threshold(sliced) == best_threshold(complete)
