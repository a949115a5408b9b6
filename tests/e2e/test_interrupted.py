"""A training that is interrupted inside an epoch continues there and ends with the same bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from pipeline.config import load_config
from pipeline.events import Event, StepFinished
from pipeline.run.cv import run_cv
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from pipeline.training.mixing import BatchMixer, Mix
from run_cv import command
from tests.e2e.commands import Killed, cv, ignore, make_plan

SETTINGS = ("train.epochs=3", "model.dropout=0.3", "train.batch_size=2", "augment.mix.mixup=0.5")
SAVE_EVERY_STEP = "train.checkpoint_minutes=1.0e-9"


def kill_at(fold: int, step: int) -> Callable[[Event], None]:
    def listen(event: Event) -> None:
        if isinstance(event, StepFinished) and (event.fold, event.step) == (fold, step):
            raise Killed

    return listen


def steps_of(plan: Plan, run: RunFolder, folds: list[int] | None = None) -> list[int]:
    """Run the plan and return the numbers of its optimizer steps."""
    steps: list[int] = []

    def count(event: Event) -> None:
        if isinstance(event, StepFinished):
            steps.append(event.step)

    run_cv(plan, run, folds=folds, fresh=False, listen=count)
    return steps


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_killed_inside_epochs_ends_with_the_same_bytes(tiny_config: Path, accumulate: int) -> None:
    plan = make_plan(tiny_config, *SETTINGS, f"train.accumulate={accumulate}", SAVE_EVERY_STEP)
    whole, killed = RunFolder(Path("runs/whole")), RunFolder(Path("runs/killed"))
    run_cv(plan, whole, folds=None, fresh=False, listen=ignore)
    for fold, step in ((0, 2), (0, 5), (1, 8)):
        with pytest.raises(Killed):
            run_cv(plan, killed, folds=None, fresh=False, listen=kill_at(fold, step))
        assert not killed.fold(fold).done.exists()
    assert steps_of(plan, killed)[0] == 8  # the step of the kill, not the first of its epoch
    assert killed.oof.read_bytes() == whole.oof.read_bytes()
    for fold in (0, 1):
        records = [
            [json.loads(line) for line in run.fold(fold).epochs.read_text().splitlines()] for run in (whole, killed)
        ]
        assert [record["loss"] for record in records[0]] == [record["loss"] for record in records[1]]


def test_a_used_time_budget_saves_all_and_the_command_continues(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, run = RunFolder(Path("runs/whole")), RunFolder(Path("runs/tiny"))
    run_cv(make_plan(tiny_config, *SETTINGS), whole, folds=None, fresh=False, listen=ignore)
    assert cv(monkeypatch, tiny_config, *SETTINGS, "train.time_budget=0s") == 0
    assert "train.time_budget=0s is used; all is saved" in capsys.readouterr().out
    assert not run.fold(0).checkpoint.exists()  # it ended before the first step
    assert cv(monkeypatch, tiny_config, *SETTINGS, "train.time_budget=9h30m") == 0
    assert run.oof.read_bytes() == whole.oof.read_bytes()


def test_a_deadline_inside_an_epoch_saves_the_state(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, clock = RunFolder(Path("runs/tiny")), iter(range(1, 10_000))
    plan = make_plan(tiny_config, *SETTINGS)
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: float(next(clock)))
        assert run_cv(replace(plan, deadline=5.0), run, folds=[0], fresh=False, listen=ignore) is None
    assert run.fold(0).checkpoint.exists()
    assert not run.fold(0).epochs.exists()
    assert 1 < steps_of(plan, run, [0])[0] <= 6


def test_a_deadline_is_kept_where_an_epoch_is_one_step(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, clock = RunFolder(Path("runs/tiny")), iter(range(1, 10_000))
    plan = make_plan(tiny_config, *SETTINGS, "train.batch_size=24", "train.epochs=9")
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: float(next(clock)))
        assert run_cv(replace(plan, deadline=9.0), run, folds=[0], fresh=False, listen=ignore) is None
    assert 1 <= len(run.fold(0).epochs.read_text().splitlines()) < 9
    done = len(run.fold(0).epochs.read_text().splitlines())
    assert steps_of(plan, run, [0])[0] == done + 1


def test_each_step_of_each_fold_draws_other_numbers(tiny_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, drawn = BatchMixer.draw, list[tuple[int, int]]()

    def note(mixer: BatchMixer, images: Tensor, *, seed: int, position: int) -> Mix:
        drawn.append((seed, position))
        return draw(mixer, images, seed=seed, position=position)

    monkeypatch.setattr(BatchMixer, "draw", note)
    run_cv(
        make_plan(tiny_config, *SETTINGS, "train.accumulate=2"),
        RunFolder(Path("runs/t")),
        folds=None,
        fresh=False,
        listen=ignore,
    )
    assert len(set(drawn)) == len(drawn) == 2 * 3 * 6  # folds x epochs x batches
    assert {position for _, position in drawn} == {0, 1}


@pytest.mark.parametrize("budget", ["8 hours", "h", "30", "1m1h"])
def test_a_budget_that_is_not_a_duration_is_refused(
    tiny_config: Path, budget: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, f"train.time_budget={budget}") == 2
    assert "train.time_budget" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "words", "expected"),
    [
        (
            "pipeline.run.plan.prepare",
            ["--fresh"],
            "the training had not begun; to go on:\n  python run_cv.py tiny.yaml --fresh\n",
        ),
        ("pipeline.run.folder.RunFolder.begin", ["--fresh", "--search"], "the training had not begun"),
        ("pipeline.run.cv.run_fold", ["--fresh"], "the state is saved after every epoch"),
        ("pipeline.search.search.work", ["--fresh", "--search"], "the state is saved after every epoch"),
        ("pipeline.run.cv.run_fold", ["--debug"], "nothing is kept of a --debug run"),
    ],
)
def test_the_message_of_an_interruption_repeats_fresh_only_if_nothing_was_deleted(
    place: str,
    words: list[str],
    expected: str,
    tiny_config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    RunFolder(Path("runs/tiny")).open(load_config(tiny_config), fresh=False)
    monkeypatch.setattr(place, interrupt)
    assert command(["tiny.yaml", *words]) == 130
    message = capsys.readouterr().err
    assert expected in message
    assert ("--fresh" in message) is ("had not begun" in expected)
