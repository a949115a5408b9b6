"""Label encodings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.competition.labels import decode_delimited, decode_wide, encode_delimited, label_names
from pipeline.errors import CompetitionError

NAMES = st.lists(
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8), min_size=1, max_size=6, unique=True
)


@settings(deadline=None)
@given(names=NAMES, data=st.data())
def test_delimited_encode_then_decode_is_the_identity(names: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.lists(st.booleans(), min_size=len(names), max_size=len(names)), max_size=5))
    decisions = np.array(rows, dtype=np.uint8).reshape(len(rows), len(names))
    cells = encode_delimited(decisions, names, " ")
    np.testing.assert_array_equal(decode_delimited(cells, names, " "), decisions)


def test_names_of_numbers_are_sorted_by_value_and_words_alphabetically() -> None:
    assert label_names(["25 2", "0", ""], " ") == ("0", "2", "25")
    assert label_names(["shark|No Finding", "eel"], "|") == ("No Finding", "eel", "shark")


def test_a_foreign_name_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'b'"):
        decode_delimited(["a b"], ["a"], " ")


def test_wide_cells_may_be_integers_or_their_floats() -> None:
    frame = pd.DataFrame({"id": ["x", "y"], "ETT - Abnormal": ["1", "0.0"], "b": ["1.0", " 0"]})
    targets = decode_wide(frame, ["b", "ETT - Abnormal"], path=Path("t.csv"), id_column="id")
    np.testing.assert_array_equal(targets, [[1, 1], [0, 0]])


@pytest.mark.parametrize("cell", ["", "2", "-1", "0.5", "yes", "nan"])
def test_other_wide_cells_are_named_by_id_and_label(cell: str) -> None:
    frame = pd.DataFrame({"id": ["x", "y"], "a": ["0", cell]})
    with pytest.raises(CompetitionError, match=f"y/a = '{cell}'"):
        decode_wide(frame, ["a"], path=Path("t.csv"), id_column="id")


def test_a_missing_label_column_is_named() -> None:
    with pytest.raises(CompetitionError, match="label columns are missing: b"):
        decode_wide(pd.DataFrame({"id": ["x"], "a": ["0"]}), ["a", "b"], path=Path("t.csv"), id_column="id")
