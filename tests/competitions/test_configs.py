"""Each shipped config goes the whole way on a miniature of its competition."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from tests.competitions.miniatures import MINIATURES, write_miniature
from tests.conftest import PROJECT
from tests.e2e.commands import cv, submission, verb

CONFIGS = PROJECT / "configs/competitions"
REAL = {"aquarium", "ucmerced"}  # tried on their real files elsewhere
TINY = (
    "images.size=32",
    "images.cache=none",
    "augment.train=[]",
    "folds.count=2",
    "model.backbone=test_resnet",
    "model.pretrained=false",
    "model.feature_stride=16",
    "model.hidden_dim=16",
    "model.heads=2",
    "model.ffn_dim=16",
    "model.encoder_layers=0",
    "model.decoder_layers=1",
    "train.batch_size=4",
)


def test_every_config_has_its_miniature_and_is_short() -> None:
    configs = {path.stem: path.read_text() for path in CONFIGS.glob("*.yaml")}
    assert set(configs) - REAL == set(MINIATURES)
    for name, text in configs.items():
        assert len(text.splitlines()) <= 25
        if name not in REAL:
            assert re.search(r"^# Facts: .*", text, re.MULTILINE), name
            assert "Metric: " in text
            assert "# Traps: " in text
            assert f"python run_cv.py configs/competitions/{name}.yaml" in text


@pytest.mark.parametrize("name", MINIATURES)
def test_a_miniature_is_trained_and_answered(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    miniature = MINIATURES[name]
    write_miniature(tmp_path / "data", miniature)
    monkeypatch.chdir(tmp_path)
    config = CONFIGS / f"{name}.yaml"
    words = ("competition.root=data", *TINY, *miniature.overrides)
    assert verb("check", config, *words) == 0
    assert cv(monkeypatch, config, *words, "--debug") == 0
    images = () if miniature.folder is None else ("--images", f"data/{miniature.folder}")
    assert submission(monkeypatch, f"runs/{name}-debug", *images) == 0
    with Path(f"runs/{name}-debug/submission.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert ",".join(header) == miniature.header
    assert tuple(row[0] for row in rows) == miniature.keys
    for row in rows:
        assert all(re.fullmatch(miniature.cell, cell) for cell in row[1:]), row
