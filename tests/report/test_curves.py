"""The learning curves show the records of epochs.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import RunError
from pipeline.files import write_json_lines
from pipeline.report.curves import draw_curves, read_epochs
from pipeline.run.folder import RunFolder

RECORDS: list[dict[str, Any]] = [
    {"epoch": 1, "loss": 0.5, "lr": 0.1, "seconds": 1.0, "map": None},
    {"epoch": 2, "loss": 0.4, "lr": 0.1, "seconds": 1.0, "map": 0.25},
    {"epoch": 3, "loss": 0.2, "lr": 0.1, "seconds": 1.0, "map": 0.75},
]


def test_each_training_has_its_line_and_unknown_scores_are_left_out(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_json_lines(run.fold(0).epochs, RECORDS)
    write_json_lines(run.fold(2).epochs, RECORDS[:2])
    write_json_lines(run.search.proxy(0).epochs, RECORDS)
    loss, score = draw_curves(read_epochs(run)).axes
    assert [line.get_label() for line in loss.lines] == ["fold0", "fold2"]
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[1, 0.5], [2, 0.4], [3, 0.2]])
    np.testing.assert_array_equal(score.lines[0].get_xydata(), [[2, 0.25], [3, 0.75]])
    assert score.get_title() == "map on the validation rows"


@pytest.mark.parametrize("empty_file", [False, True])
def test_a_run_without_a_finished_epoch_is_refused(tmp_path: Path, empty_file: bool) -> None:
    run = RunFolder(tmp_path)
    if empty_file:
        write_json_lines(run.fold(0).epochs, [])
    with pytest.raises(RunError, match="holds no finished epoch"):
        read_epochs(run)


@pytest.mark.parametrize("line", ["5", "{}", "{"])
def test_a_line_that_is_not_a_record_is_refused(tmp_path: Path, line: str) -> None:
    run = RunFolder(tmp_path)
    write_json_lines(run.fold(0).epochs, RECORDS)
    with run.fold(0).epochs.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RunError, match=r"epochs.jsonl is not readable"):
        read_epochs(run)


def test_folds_are_sorted_by_number(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for fold in (10, 2):
        write_json_lines(run.fold(fold).epochs, RECORDS)
    assert list(read_epochs(run)) == ["fold2", "fold10"]
