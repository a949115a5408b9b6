"""Run folders: atomic files, and refusal of what does not belong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.config import Config, check_config
from pipeline.errors import RunError
from pipeline.files import temporary_name, write_json
from pipeline.run.folder import RunFolder


def test_a_run_is_opened_again_with_the_same_training_keys_and_new_after_keys(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.open(Config(), fresh=False)
    changed = check_config(
        {"recipe": "official", "thresholds": {"policy": "fixed"}, "competition": {"root": "moved"}}, source="x"
    )
    run.open(changed, fresh=False)
    assert run.read_config() == changed


def test_other_training_keys_are_refused_by_name_and_change_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.open(Config(), fresh=False)
    before = run.config.read_bytes()
    with pytest.raises(RunError, match=r"train\.lr: 0\.0001 in the run, 1\.0 now"):
        run.open(check_config({"recipe": "official", "train": {"lr": 1.0}}, source="x"), fresh=False)
    assert run.config.read_bytes() == before


def test_fresh_deletes_a_run_but_nothing_else(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.open(Config(), fresh=False)
    write_json(run.scores, {"a": 1})
    run.open(check_config({"recipe": "official", "train": {"lr": 1.0}}, source="x"), fresh=True)
    assert not run.scores.exists()
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.jpg").write_text("meow")
    with pytest.raises(RunError, match="not a run folder"):
        RunFolder(photos).open(Config(), fresh=True)
    assert (photos / "cat.jpg").exists()


def test_leftovers_of_a_killed_write_are_removed_at_the_next_start(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.open(Config(), fresh=False)
    (run.path / "fold0").mkdir()
    dead, alive = (
        run.path / "fold0" / temporary_name("oof.parquet", process=process) for process in (2**22 + 1, os.getpid())
    )
    for path in (dead, alive):
        path.write_text("half")
    run.open(Config(), fresh=False)
    assert not dead.exists()
    assert alive.exists()


def test_a_run_killed_in_its_first_write_is_opened_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    (run.path / temporary_name("run.json", process=2**22 + 1)).write_text("half")
    for fresh in (True, False):
        RunFolder(run.path).check(Config())
        run.open(Config(), fresh=fresh)
        assert {path.name for path in run.path.iterdir()} <= {"config.yaml", "run.json", "run.lock"}


def test_a_strangers_config_executes_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.config.write_text(f"train: !!python/object/apply:os.mkdir ['{tmp_path}/owned']")
    with pytest.raises(RunError, match="not valid YAML"):
        run.read_config()
    assert not (tmp_path / "owned").exists()
