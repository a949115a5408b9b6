"""`run_cv.py --autopilot`: a plan only, a budget that is kept, kills in between."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from pipeline.autopilot.arms import arms_of
from pipeline.autopilot.steps import AutopilotState
from pipeline.config import load_config
from tests.conftest import PROJECT, TINY, make_wide_competition
from tests.e2e.commands import cv, printed, verb

HOME = Path("runs/tiny-autopilot")
ONE_ARM = "autopilot.arms=[{name: gap, model.head: gap}]"


def test_a_budget_of_0_measures_and_plans_and_trains_nothing(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, "--autopilot", "0", ONE_ARM) == 0
    shown = printed(capsys)
    assert all(f"Plan for {budget}" in shown for budget in ("30m", "2h", "9h"))
    assert "first submission: gap" in shown
    assert {path.name for path in Path("runs").iterdir()} == {".cache", "tiny-autopilot", "tiny-autopilot-debug"}
    assert [*AutopilotState.load(HOME / "autopilot.json").costs] == ["gap"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--autopilot", "6"], "--autopilot 6"),
        (["--autopilot", "1h", "--search"], "leave --search"),
        (["--autopilot", "1h", "autopilot.arms=[{name: a b}]"], "each arm needs a name"),
        (["--autopilot", "1h", "autopilot.arms=[{name: a}, {name: a}]"], "'a' occurs twice"),
        (["--autopilot", "1h", "autopilot.arms=[{name: a, model.haed: gap}]"], "model.haed: unknown key"),
    ],
)
def test_a_mistake_is_one_message(
    words: list[str],
    message: str,
    tiny_config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cv(monkeypatch, tiny_config, *words) == 2
    assert message in capsys.readouterr().err


def test_without_time_for_any_training_it_is_said_what_to_do(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, "--autopilot", "1s", ONE_ARM) == 2
    assert "give --autopilot more time" in capsys.readouterr().err
    assert AutopilotState.load(HOME / "autopilot.json").best is None


def test_arms_follow_the_config() -> None:
    pretrained = load_config(PROJECT / "configs/base.yaml", ["model.head=gap", "model.backbone_weights=a.safetensors"])
    assert [*arms_of(pretrained)] == ["own", "frozen", "larger", "bce"]
    frozen = load_config(PROJECT / "configs/base.yaml", arms_of(pretrained)["frozen"])
    assert (frozen.train.frozen_backbone, frozen.train.epochs, frozen.images.size) == (True, 8, 384)
    scratch = arms_of(load_config(PROJECT / "configs/demo.yaml"))
    assert [*scratch] == ["own", "larger", "gap", "bce"]
    assert load_config(PROJECT / "configs/demo.yaml", scratch["gap"]).train.epochs == 250  # five times its own


FROZEN = "autopilot.arms=[{name: frozen, train.frozen_backbone: true, model.backbone_weights: own.safetensors}]"


@pytest.mark.slow
def test_a_killed_autopilot_keeps_its_submission_goes_on_and_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_wide_competition(Path("data"), train=60, test=12)
    Path("tiny.yaml").write_text(TINY)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=0)
    save_file(model.state_dict(), "own.safetensors")
    budget = 90
    command = [sys.executable, str(PROJECT / "run_cv.py"), "tiny.yaml", FROZEN, "--autopilot", f"{budget}s"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    shown = ""
    for kill in range(4):
        with Path("shown.txt").open("w") as stream:
            process = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
            end = time.monotonic() + 120
            while not (HOME / "submission.csv").exists() and process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=9 + 1.3 * kill if kill < 3 else 2 * budget)
            process.kill()
            process.wait(timeout=10)
        shown = Path("shown.txt").read_text(encoding="utf-8")
        assert process.returncode in ((-signal.SIGKILL,) if kill < 3 else (0,)), shown
        assert verb("validate", "tiny.yaml", HOME / "submission.csv") == 0
        state = AutopilotState.load(HOME / "autopilot.json")
        best = Path(f"runs/tiny-autopilot-{state.best}")
        assert (HOME / "submission.csv").read_bytes() == (best / "submission.csv").read_bytes()
    assert state.spent <= budget * 1.02
    assert (best / "report.html").exists()
    assert Path("runs/tiny-autopilot-blend-2/blend.json").exists()
    assert Path("runs/tiny-autopilot-frozen/scores.json").exists()
