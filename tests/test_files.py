"""Files are written whole or not at all, and broken ones raise clear errors."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import RunError
from pipeline.files import (
    TEMPORARY_PREFIX,
    read_json,
    read_predictions,
    remove_leftovers,
    temporary_name,
    write_atomically,
    write_json,
    write_parquet,
    write_text,
)


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def half(temporary: Path) -> None:
        temporary.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(RunError, match=r"a\.txt cannot be written(.|\n)*disk full"):
        write_atomically(path, half)
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_predictions_are_read_by_id_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "oof.parquet"
    write_parquet(path, pd.DataFrame({"id": ["007", "01"], "a": [0.1, 0.2]}))
    assert read_predictions(path, ["a"]).loc["007", "a"] == 0.1
    with pytest.raises(RunError, match="no column b"):
        read_predictions(path, ["b"])
    write_parquet(path, pd.DataFrame({"id": ["7", "7"], "a": [0.1, 0.2]}))
    with pytest.raises(RunError, match="repeated ids"):
        read_predictions(path, ["a"])
    path.write_bytes(b"nothing of parquet")
    with pytest.raises(RunError, match="not readable as parquet"):
        read_predictions(path, ["a"])


def test_json_with_nan_and_broken_json_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert not path.exists()
    path.write_text("{")
    with pytest.raises(RunError, match="not valid JSON"):
        read_json(path)


def test_files_that_another_host_may_be_writing_are_kept(tmp_path: Path) -> None:
    dead = 2**22 + 1  # no process has this number
    names = [
        temporary_name("oof.parquet", process=dead),
        temporary_name("oof.parquet"),
        temporary_name("oof.parquet", host="node-2.cluster", process=dead),
        temporary_name("oof.parquet", host="node-3.cluster"),
        f"{TEMPORARY_PREFIX}{os.getpid()}-oof.parquet",  # without a host
    ]
    for name in names:
        (tmp_path / name).write_text("half")
    two_days_ago = time.time() - 2 * 24 * 3600
    for name in (names[1], names[3]):
        os.utime(tmp_path / name, (two_days_ago, two_days_ago))
    remove_leftovers([tmp_path])
    assert {path.name for path in tmp_path.iterdir()} == {names[1], names[2], names[4]}
