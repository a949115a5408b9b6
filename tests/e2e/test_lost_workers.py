"""A loading worker is lost: one message, exit code 2, and the same command goes on to the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.images.dataset import EvalImages, TrainImages
from tests.e2e.commands import cv, submission

SETTINGS = ("train.workers=1", "train.checkpoint_minutes=1e-9", "images.cache=none", "train.epochs=1")


def dying(load: Callable[[Any, Any], Any], index: int) -> Callable[[Any, Any], Any]:
    """`load`, but a worker that loads this row, or a later one, kills itself."""

    def instead(images: Any, key: Any) -> Any:
        if (key[1] if isinstance(key, tuple) else key) >= index:
            os.kill(os.getpid(), signal.SIGKILL)
        return load(images, key)

    return instead


SEARCH = ("--search", "search.trials=1", "search.epochs=1", "search.then=stop")


@pytest.mark.parametrize(("images", "words"), [(TrainImages, SEARCH), (TrainImages, ()), (EvalImages, ())])
def test_in_training_and_validation(
    images: type[Any],
    words: tuple[str, ...],
    tiny_config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(images, "__getitem__", dying(images.__getitem__, 13))
        assert cv(patch, tiny_config, *SETTINGS, *words) == 2
    printed = capsys.readouterr().err
    assert printed.count("error: ") == 1
    assert "lower train.workers" in printed
    assert cv(monkeypatch, tiny_config, *SETTINGS, *words) == 0
    if not words:
        assert cv(monkeypatch, tiny_config, *SETTINGS, "--run", "whole") == 0
        assert Path("runs/tiny/oof.parquet").read_bytes() == Path("runs/whole/oof.parquet").read_bytes()


def test_in_prediction(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.parent.parent, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    config = Path("runs/tiny/config.yaml")
    config.write_text(config.read_text().replace("workers: auto", "workers: 1"))
    with monkeypatch.context() as patch:
        patch.setattr(EvalImages, "__getitem__", dying(EvalImages.__getitem__, 3))
        assert submission(patch, "runs/tiny") == 2
    assert capsys.readouterr().err.count("error: ") == 1
    assert not Path("runs/tiny/submission.csv").exists()
    assert submission(monkeypatch, "runs/tiny") == 0
