"""`run_cv.py --autopilot`: a plan only, a budget that is kept, kills in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
    state = AutopilotState.load(HOME / "autopilot.json")
    assert state.done["gap-first@0"].score is None
    assert state.with_budget(1.0) == state
    more = state.with_budget(90.0)
    assert (more.done, more.schedule, more.costs) == ({}, None, state.costs)


def test_arms_follow_the_config() -> None:
    pretrained = load_config(PROJECT / "configs/base.yaml", ["model.head=gap", "model.backbone_weights=a.safetensors"])
    assert [*arms_of(pretrained)] == ["own", "frozen", "bce", "larger"]
    frozen = load_config(PROJECT / "configs/base.yaml", arms_of(pretrained)["frozen"])
    assert (frozen.train.frozen_backbone, frozen.train.epochs, frozen.images.size) == (True, 8, 384)
    assert [*arms_of(load_config(PROJECT / "configs/demo.yaml"))] == ["own", "gap", "bce", "larger"]


@pytest.mark.slow
def test_a_killed_autopilot_keeps_its_submission_goes_on_and_ends_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_wide_competition(Path("data"), train=60, test=12)
    Path("tiny.yaml").write_text(TINY)
    command = [sys.executable, str(PROJECT / "run_cv.py"), "tiny.yaml", "--autopilot", "60s"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not (HOME / "submission.csv").exists() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(5)
    first.kill()
    assert first.wait(timeout=10) == -signal.SIGKILL
    before = AutopilotState.load(HOME / "autopilot.json")
    assert before.done
    written = (HOME / "submission.csv").read_bytes()
    assert verb("validate", "tiny.yaml", HOME / "submission.csv") == 0
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    after = AutopilotState.load(HOME / "autopilot.json")
    assert {**after.done, **before.done} == after.done  # nothing is done again
    assert any(step.startswith("blend-") for step in after.done)
    assert before.spent < after.spent <= 60 * 1.02
    assert (HOME / "submission.csv").read_bytes() != written or after.best == before.best
    assert after.best is not None
    source = Path(f"runs/tiny-autopilot-{after.best.removesuffix('@0')}/submission.csv")
    assert (HOME / "submission.csv").read_bytes() == source.read_bytes()
