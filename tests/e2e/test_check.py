"""`python -m pipeline check CONFIG` writes audit.json and ends with 0 or 2; a run can start after it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.commands import cv, verb


def test_check_writes_an_audit_and_the_run_can_start(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    shown = capsys.readouterr()
    assert "t.003" in shown.out
    assert "t.001" in shown.out
    assert "not ready" in shown.out
    assert "2 errors" in shown.err
    assert "Traceback" not in shown.err
    assert json.loads((tiny_config.parent / "runs/tiny/audit.json").read_text())["ready"] is False
