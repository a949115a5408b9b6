"""Broken training images: refused by default, left out and named if the config allows it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import TINY
from tests.e2e.commands import cv, printed


@pytest.fixture
def damaged(workplace: Path) -> Path:
    """The small competition with one training image missing and one truncated after its header."""
    (workplace / "data/train/t.003.png").unlink()
    image = workplace / "data/train/t.007.png"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2] + whole[-12:])
    path = workplace / "tiny.yaml"
    path.write_text(TINY.replace("images: {size: 32}", "images: {size: 32, broken: skip, cache: none}"))
    return path


def test_rows_of_broken_images_are_left_out_and_named(
    damaged: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, damaged, "train.epochs=1") == 0
    shown = printed(capsys)
    assert "2 of 24 training images cannot be read and are left out: t.003 (" in shown
    assert "t.007 (" in shown
    ids = [f"t.{number:03d}" for number in range(24) if number not in (3, 7)]
    assert sorted(pd.read_parquet(workplace / "runs/tiny/oof.parquet")["id"]) == ids
    assert sorted(pd.read_csv(workplace / "runs/tiny/folds.csv", dtype=str)["id"]) == ids


def test_a_fold_file_may_name_the_rows_that_are_left_out(
    damaged: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = pd.read_csv(workplace / "data/train.csv", dtype=str)["id"]
    pd.DataFrame({"id": ids, "fold": [row % 2 for row in range(len(ids))]}).to_csv(
        workplace / "data/folds.csv", index=False
    )
    assert cv(monkeypatch, damaged, "folds.file=folds.csv", "train.epochs=1") == 0
    folds = pd.read_csv(workplace / "runs/tiny/folds.csv", dtype={"id": str, "fold": int}).set_index("id")["fold"]
    assert len(folds) == 22
    assert folds.tolist() == [int(id_[2:]) % 2 for id_ in folds.index]


def test_a_training_set_without_a_readable_image_is_refused(
    damaged: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "data/train").rename(workplace / "data/elsewhere")
    assert cv(monkeypatch, damaged) == 2
    message = capsys.readouterr().err
    assert "24 of 24 images cannot be read" in message
    assert "data/train does not exist" in message
    assert not (workplace / "runs").exists()


def test_a_missing_image_is_reported_with_the_most_similar_file(
    damaged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, damaged, "images.broken=error") == 2
    message = capsys.readouterr().err
    assert "1 of 24 images cannot be read" in message  # the first check notices only the missing one
    assert "the file nearest to t.003.png" in message
