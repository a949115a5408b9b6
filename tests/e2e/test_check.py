"""`run_cv.py CONFIG --check`: writes audit.json, ends with 0 or 2, and leaves the run free to start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.commands import cv, verb


def test_check_writes_its_audit_and_the_run_can_follow(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert verb("check", tiny_config) == 0
    run = tiny_config.parent / "runs/tiny"
    assert {path.name for path in run.iterdir()} == {"run.json", "audit.json"}
    assert json.loads((run / "audit.json").read_text())["ready"] is True
    assert cv(monkeypatch, tiny_config, "--folds", "0") == 0


def test_check_with_errors_ends_with_2_and_lists_all(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tiny_config.parent / "data/train/t.003.png").unlink()
    (tiny_config.parent / "data/test/t.001.png").write_bytes(b"x")
    assert verb("check", tiny_config) == 2
    told = capsys.readouterr()
    assert "t.003" in told.out
    assert "t.001" in told.out
    assert "not ready" in told.out
    assert "2 errors" in told.err
    assert "Traceback" not in told.err
    assert json.loads((tiny_config.parent / "runs/tiny/audit.json").read_text())["ready"] is False
