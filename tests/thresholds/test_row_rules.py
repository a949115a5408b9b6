from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from pipeline.metrics.targets import Floats
from pipeline.thresholds.row_rules import EmptyPolicy, RowRules
from tests.thresholds.tables import quick


@st.composite
def ruled(draw: st.DrawFn) -> tuple[RowRules, Floats, Floats]:
    rows, labels = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    grid = st.integers(0, 10).map(lambda tenth: tenth / 10)
    table = np.array(draw(st.lists(st.lists(grid, min_size=labels, max_size=labels), min_size=rows, max_size=rows)))
    thresholds = np.array(draw(st.lists(grid, min_size=labels, max_size=labels)))
    names = st.integers(0, labels - 1)
    of_two_or_three = st.lists(names, min_size=min(labels, 2), max_size=3, unique=True).map(tuple)
    sets = draw(st.lists(of_two_or_three, max_size=2))
    least = draw(st.integers(0, labels))
    most = draw(st.none() | st.integers(max(1, least), labels))
    words: list[EmptyPolicy] = ["none", "argmax"]
    empty = draw(st.sampled_from(words) | names)
    return RowRules(empty, least, most, tuple(sets)), table, thresholds


def row_by_definition(rules: RowRules, row: Floats, thresholds: Floats) -> list[int]:
    """The rules restated for one row, label by label."""
    decided = [int(p >= t) for p, t in zip(row, thresholds, strict=True)]
    if not any(decided) and rules.empty != "none":
        decided[int(row.argmax()) if rules.empty == "argmax" else rules.empty] = 1
    margins = row - thresholds
    taken: set[int] = set()
    for label in sorted(range(row.size), key=lambda k: (-decided[k], -margins[k], k)):
        free = not any(label in group and taken & set(group) for group in rules.exclusive)
        room = rules.max_labels is None or len(taken) < rules.max_labels
        if free and room and (decided[label] or len(taken) < rules.min_labels):
            taken.add(label)
    return [int(label in taken) for label in range(row.size)]


@quick
@given(case=ruled())
def test_decisions_equal_the_rules_applied_row_by_row(case: tuple[RowRules, Floats, Floats]) -> None:
    rules, table, thresholds = case
    assert rules.apply(table, thresholds).tolist() == [row_by_definition(rules, row, thresholds) for row in table]


def test_by_hand() -> None:
    row, thresholds = np.array([[0.9, 0.6, 0.3, 0.2]]), np.array([0.8, 0.2, 0.1, 0.9])
    assert RowRules().apply(row, thresholds).tolist() == [[1, 1, 1, 0]]
    assert RowRules(max_labels=1).apply(row, thresholds).tolist() == [[0, 1, 0, 0]]  # 0.4 above its threshold
    assert RowRules(exclusive=((0, 2),)).apply(row, thresholds).tolist() == [[0, 1, 1, 0]]
    assert RowRules(min_labels=4).apply(row, thresholds).tolist() == [[1, 1, 1, 1]]
    assert RowRules(min_labels=3, exclusive=((0, 1),)).apply(row, thresholds).tolist() == [[0, 1, 1, 1]]


def test_the_fallback_of_an_empty_row_counts_for_min_labels() -> None:
    row, thresholds = np.array([[0.1, 0.2, 0.3]]), np.array([0.15, 0.5, 0.9])
    assert RowRules("argmax", min_labels=2).apply(row, thresholds).tolist() == [[1, 0, 1]]


@pytest.mark.parametrize(("least", "most"), [(-1, None), (0, 0), (3, 2)])
def test_limits_that_contradict_each_other_are_refused(least: int, most: int | None) -> None:
    with pytest.raises(ValueError, match="min_labels <= max_labels"):
        RowRules(min_labels=least, max_labels=most)


@pytest.mark.parametrize("empty", [3, -1, "max", 0.0])
def test_a_rule_on_a_label_that_does_not_exist_is_refused(empty: Any) -> None:
    for rules in (RowRules(empty), RowRules(exclusive=((0, 3),))):
        with pytest.raises(ValueError, match="below 3"):
            rules.apply(np.zeros((2, 3)), np.zeros(3))


ABOVE_ONE = np.nextafter(1.0, 2.0)
PROBABILITIES = np.array([[0.5, 0.2, 0.6], [0.1, 0.3, 0.2], [0.4, 0.4, 0.0], [0.49, 0.1, 0.7]])


@pytest.mark.parametrize(
    ("empty", "empty_rows"),
    [("none", [[0, 0, 0], [0, 0, 0]]), ("argmax", [[0, 1, 0], [1, 0, 0]]), (2, [[0, 0, 1], [0, 0, 1]])],
)
def test_only_empty_rows_fall_back(empty: Any, empty_rows: list[list[int]]) -> None:
    decisions = RowRules(empty).apply(PROBABILITIES, np.array([0.5, 0.5, 0.7]))
    assert decisions.dtype == np.uint8
    assert decisions.tolist() == [[1, 0, 0], *empty_rows, [0, 0, 1]]  # probability == threshold is decided


def test_a_threshold_above_one_decides_nothing_and_zero_everything() -> None:
    certain = np.array([[1.0, 0.0]])
    assert RowRules().apply(certain, np.full(2, ABOVE_ONE)).tolist() == [[0, 0]]
    assert RowRules().apply(certain, np.zeros(2)).tolist() == [[1, 1]]


@pytest.mark.parametrize("thresholds", [np.float64(0.5), np.full(2, 0.5), np.full((1, 3), 0.5)])
def test_thresholds_that_do_not_match_the_labels_are_refused(thresholds: Floats) -> None:
    with pytest.raises(ValueError, match=r"thresholds \(K,\)"):
        RowRules().apply(PROBABILITIES, thresholds)
