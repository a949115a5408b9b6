"""`python -m pipeline new` writes a config that trains and submits unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.competitions.miniatures import MINIATURES, write_miniature
from tests.competitions.test_configs import TINY
from tests.e2e.commands import cv, printed, submission, verb


@pytest.mark.parametrize(
    ("name", "train", "images"),
    [
        ("planet_amazon", "train_v2.csv", "train-jpg"),
        ("hpa_2018", "train.csv", "train"),
        ("ranzcr_clip", "train.csv", "train"),
        ("dirty_mnist", "dirty_mnist_2nd_answer.csv", "dirty_mnist_2nd"),
    ],
)
def test_a_guessed_config_trains_and_submits(
    name: str,
    train: str,
    images: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_miniature(tmp_path / "data" / name, MINIATURES[name])
    given = ("new", f"data/{name}/{train}", f"data/{name}/{images}")
    assert verb(*given) == 0
    shown = printed(capsys)
    assert "guessed: images: " in shown
    assert f"configs/{name}.yaml is written" in shown
    text = Path(f"configs/{name}.yaml").read_text()
    assert verb(*given) == 0  # it was interrupted while it tried what it had written
    Path(f"configs/{name}.yaml").write_text(f"{text}# mine\n")
    assert verb(*given) == 2
    assert "is there already" in capsys.readouterr().err
    assert Path(f"configs/{name}.yaml").read_text() == f"{text}# mine\n"
    assert verb("check", f"configs/{name}.yaml", "folds.count=2") == 0
    assert cv(monkeypatch, f"configs/{name}.yaml", *TINY, "--debug") == 0
    assert submission(monkeypatch, f"runs/{name}-debug") == 0
