"""A run that is killed with SIGKILL at chosen points and started again ends with the same bytes and files."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import files
from pipeline.images.caching import cache_writer
from pipeline.images.caching.cache_writer import PartialCache
from pipeline.run.cv import run_cv
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from pipeline.training.step_callback import StepCallback
from tests.e2e.commands import ignore, make_plan

SAVE_EVERY_STEP = "train.checkpoint_minutes=1e-9"


def run(plan: Plan, folder: RunFolder) -> None:
    run_cv(plan, folder, folds=None, fresh=False, listen=ignore)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nth(number: int, act: Callable[..., None], before: Callable[..., Any], when: Callable[..., bool]) -> Any:
    """`before`, with a call of `act` first on call `number` for which `when` is true."""
    calls = 0

    def instead(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += when(*arguments)
        if calls == number:
            act(*arguments)
        return before(*arguments, **named)

    return instead


def at_a_step() -> None:
    StepCallback.step = nth(8, lambda *_: die(), StepCallback.step, lambda *_: True)  # type: ignore[method-assign]


def in_half_a_file(name: str, number: int) -> Callable[[], None]:
    def halve(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)
        die()

    def begin() -> None:
        files.flush = nth(number, halve, files.flush, lambda path: path.name.endswith(name))

    return begin


def at_the_rename(name: str, number: int) -> Callable[[], None]:
    def begin() -> None:
        Path.replace = nth(  # type: ignore[method-assign]
            number, lambda *_: die(), Path.replace, lambda _, target: Path(target).name == name
        )

    return begin


def before_a_state_is_deleted() -> None:
    Path.unlink = nth(  # type: ignore[method-assign]
        1, lambda *_, **__: die(), Path.unlink, lambda path, **_: path.name == "checkpoint.safetensors"
    )


def while_the_cache_is_built() -> None:
    cache_writer._SAVED_EVERY = 4
    PartialCache.append = nth(11, lambda *_: die(), PartialCache.append, lambda *_: True)  # type: ignore[method-assign]


POINTS = {
    "step": at_a_step,
    "cache half built": while_the_cache_is_built,
    "half a checkpoint": in_half_a_file("checkpoint.safetensors", 4),
    "whole checkpoint, not renamed": at_the_rename("checkpoint.safetensors", 5),
    "half the weights": in_half_a_file("weights.safetensors", 2),
    "half the predictions": in_half_a_file("oof.parquet", 1),
    "fold not marked as done": at_the_rename("done.json", 1),
    "done, its state not deleted": before_a_state_is_deleted,
    "the last rename": at_the_rename("scores.json", 1),
}


def killed(plan: Plan, folder: RunFolder, begin: Callable[[], None]) -> int | None:
    """The exit code of a process that runs the plan until the point that `begin` sets."""

    def body() -> None:
        begin()
        run(plan, folder)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # on fork with threads; the child uses none of them
        process = multiprocessing.get_context("fork").Process(target=body)
        process.start()
    process.join()
    return process.exitcode


def names(folder: RunFolder) -> set[str]:
    return {str(path.relative_to(folder.path)) for path in folder.path.rglob("*")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The bytes and files of a run that is not killed; the first test fills it."""
    return {}


@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_at_this_point_ends_with_the_same_bytes(
    point: str, tiny_config: Path, whole: dict[str, Any]
) -> None:
    plan = make_plan(tiny_config, SAVE_EVERY_STEP)
    if not whole:
        run(plan, RunFolder(Path("runs/whole")))
        done = RunFolder(Path("runs/whole"))
        whole.update(oof=done.oof.read_bytes(), names=names(done), weights=done.fold(1).weights.read_bytes())
        shutil.rmtree(done.cache)  # for the kill while it is built
    folder = RunFolder(Path("runs/killed"))
    assert killed(plan, folder, POINTS[point]) == -signal.SIGKILL
    assert not folder.scores.exists()
    run(plan, folder)
    assert folder.oof.read_bytes() == whole["oof"]
    assert folder.fold(1).weights.read_bytes() == whole["weights"]
    assert names(folder) == whole["names"]
    assert {path.suffix for path in Path("runs/.cache").iterdir()} == {".npy", ".lock"}


def test_a_killed_prediction_with_other_views_does_not_replace_the_old_one(tiny_config: Path) -> None:
    plan, folder = make_plan(tiny_config, SAVE_EVERY_STEP), RunFolder(Path("runs/tiny"))
    run(plan, folder)
    before = folder.oof.read_bytes()
    turned = make_plan(tiny_config, SAVE_EVERY_STEP, "predict.tta=[hflip]")
    assert killed(turned, folder, at_the_rename("done.json", 1)) == -signal.SIGKILL
    run(plan, folder)
    assert folder.oof.read_bytes() == before
