"""Small real competitions on disk, shared by all tests."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2
import hypothesis
import numpy as np
import pandas as pd
import pytest
import torch

PROJECT = Path(__file__).parent.parent
LABELS = ("red", "green", "blue")
hypothesis.settings.register_profile("no deadline", deadline=None)  # the first call of a test also imports
hypothesis.settings.load_profile("no deadline")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def quick_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds side by side start as forks of one process that has imported all; else each takes seconds for that."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setattr("pipeline.run.parallel_folds._START_METHOD", "forkserver")
    multiprocessing.set_forkserver_preload(["pipeline.run.cv", "pipeline.search.worker"])


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, with a small wide competition in `data/`."""
    make_wide_competition(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_wide_competition(root: Path, *, train: int = 24, test: int = 6) -> None:
    """Squares of up to three colours; ids with dots and zeros; an extra column behind the labels."""
    generator = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        (root / part).mkdir(parents=True)
        targets = generator.integers(0, 2, (count, len(LABELS)))
        ids = [f"{part[0]}.{number:03d}" for number in range(count)]
        for id_, row in zip(ids, targets, strict=True):
            _draw(root / part / f"{id_}.png", row, generator)
        frame = pd.DataFrame({"id": ids, "img_path": [f"./{part}/{id_}.png" for id_ in ids]})
        if part == "train":
            frame[list(LABELS)] = targets
            frame["site"] = [f"site{number // 3}" for number in range(count)]
        frame.to_csv(root / f"{part}.csv", index=False)
        if part == "test":
            sample = pd.DataFrame(0, index=range(count), columns=list(LABELS))
            sample.insert(0, "id", ids)
            sample.to_csv(root / "sample_submission.csv", index=False)


def _draw(path: Path, row: np.ndarray, generator: np.random.Generator) -> None:
    image = generator.integers(0, 60, (32, 32, 3)).astype(np.uint8)
    for channel, present in enumerate(row):
        if present:
            top, left = generator.integers(0, 22, 2)
            image[top : top + 10, left : left + 10, 2 - channel] = 255  # OpenCV writes BGR
    assert cv2.imwrite(str(path), image)


TINY = """
competition: {root: data, test: test.csv}
folds: {count: 2}
images: {size: 32}
augment: {train: [{HorizontalFlip: {p: 0.5}}]}
model: {backbone: test_resnet, pretrained: false, feature_stride: 16, hidden_dim: 16, heads: 2, ffn_dim: 16,
        encoder_layers: 0, decoder_layers: 1}
train: {epochs: 2, batch_size: 4, lr: 3.0e-3, ema_decay: 0.9}
"""


@pytest.fixture
def tiny_config(workplace: Path) -> Path:
    """A config of the small competition that trains in a second or two."""
    path = workplace / "tiny.yaml"
    path.write_text(TINY)
    return path
