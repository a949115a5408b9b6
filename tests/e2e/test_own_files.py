"""A person's own files lie where a run could be: no command changes or deletes a byte of them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file

from pipeline.errors import RunError
from pipeline.files import read_json, write_json
from pipeline.report.figures import save_figure
from pipeline.run.folder import RunFolder
from tests.conftest import PROJECT
from tests.e2e.commands import Killed, cv, submission, verb

COMMANDS = (
    (),
    ("--fresh",),
    ("--search", "search.trials=1", "search.epochs=1"),
    ("--search", "--fresh", "search.trials=1", "search.epochs=1"),
    ("--folds", "finished"),
)


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Every file and link below `folder`; links are not followed."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def put(path: Path, text: str = "mine") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def linked_photos(run: Path) -> None:
    put(run.parent.parent / "own/cat.jpg")
    link(run, run.parent.parent / "own")


# In each case `runs/tiny` is no run of ours: everything below the workplace must stay as it is.
FOREIGN: dict[str, Callable[[Path], None]] = {
    "a blog's config": lambda run: put(run / "config.yaml", "title: my blog"),
    "a config of ours, copied": lambda run: put(run / "config.yaml", "train: {epochs: 2}"),
    "photos": lambda run: put(run / "cat.jpg"),
    "a dot file": lambda run: put(run / ".gitignore"),
    "a search with trials": lambda run: put(run / "search/trials.csv"),
    "a search with a best.yaml": lambda run: put(run / "search/best.yaml"),
    "a search with a study": lambda run: put(run / "search/study.db"),
    "another tool's run.json": lambda run: put(run / "run.json", '{"name": "my run", "made_by": "me"}'),
    "a run.json that is not JSON": lambda run: put(run / "run.json", "made_by: q2l-pipeline"),
    "a run.json that is a list": lambda run: put(run / "run.json", '["made_by", "q2l-pipeline"]'),
    "an audit of somebody's": lambda run: put(run / "audit.json", "{}"),
    "a temporary name of another tool": lambda run: put(run / ".writing-notes.txt"),
    "a fold": lambda run: put(run / "fold0/weights.safetensors"),
    "a file in place of the folder": lambda run: put(run),
    "a link to a folder of photos": lambda run: linked_photos(run),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_folder_without_our_mark_is_refused_by_every_command(
    case: str, tiny_config: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FOREIGN[case](workplace / "runs/tiny")
    before = snapshot(workplace)
    for words in COMMANDS:
        assert cv(monkeypatch, tiny_config, *words) == 2, words
        told = capsys.readouterr().err
        assert "remedy:" in told
        assert "Traceback" not in told
        assert snapshot(workplace) == before, words
    assert verb("check", tiny_config) == 2
    assert snapshot(workplace) == before
    if (workplace / "runs/tiny").is_dir():
        assert submission(monkeypatch, "runs/tiny") == 2
        assert snapshot(workplace) == before


@pytest.mark.parametrize(
    "name", ["../other", "..", ".", "", " ", "a/b", "/tmp/x", ".hidden", "a\\b", "a\0b", "a\nb", "\x1b[31m", "x" * 256]
)
@pytest.mark.parametrize("words", [(), ("--fresh",), ("--search",)])
def test_a_run_is_one_name_below_runs(
    name: str,
    words: tuple[str, ...],
    tiny_config: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put(workplace / "other/audit.json")
    put(workplace.parent / f"{workplace.name}-beside/config.yaml")
    before = snapshot(workplace)
    assert cv(monkeypatch, tiny_config, "--run", name, *words) == 2
    assert verb("check", tiny_config, "--run", name) == 2
    assert "is not the name of a run" in capsys.readouterr().err
    assert snapshot(workplace) == before


# In each case a finished run holds a link, or a file, where the pipeline writes into a folder or a file in place.
LINKED: dict[str, tuple[str, str]] = {
    "a fold": ("fold0", "own"),
    "a fold to come": ("fold7", "own"),
    "the full fit": ("full", "own"),
    "a fold's state": ("fold0/resume", "own"),
    "the models of a seed": ("fold0/seed1", "own"),
    "the search": ("search", "own"),
    "the trials": ("search/trials", "own"),
    "one trial": ("search/trials/0", "own"),
    "a trial's fold": ("search/trials/0/fold0", "own"),
    "the proxies": ("search/proxy", "own"),
    "a proxy": ("search/proxy/fold0", "own"),
    "the study": ("search/study.db", "own/study.db"),
    "the study's lock": ("search/lock", "own/lock"),
    "the run's lock": ("run.lock", "own/run.lock"),
    "a fold's lock": ("fold0/resume/lock", "own/lock"),
}


@pytest.mark.parametrize("case", LINKED)
def test_no_link_inside_of_a_run_is_followed(
    case: str,
    finished: Path,
    tiny_config: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place, target = LINKED[case]
    run = workplace / "runs/tiny"
    shutil.copytree(finished, run)
    for name in ("lock", "run.lock", "study.db", "weights.safetensors", "done.json", "0/fold0/done.json", "notes.txt"):
        put(workplace / "own" / name)
    if (run / place).is_dir():
        shutil.rmtree(run / place)
    (run / place).unlink(missing_ok=True)
    link(run / place, workplace / target)
    before = snapshot(workplace / "own")
    for words in COMMANDS:
        code = cv(monkeypatch, tiny_config, *words)
        told = capsys.readouterr().err
        assert code == 2, (words, told)
        assert "is a link" in told
        assert "Traceback" not in told
        assert snapshot(workplace / "own") == before, words
    for code in (verb("check", tiny_config), submission(monkeypatch, "runs/tiny")):
        assert code == 2
    assert snapshot(workplace / "own") == before


def test_fresh_deletes_our_files_and_keeps_everything_else_in_the_run(
    finished: Path, tiny_config: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = workplace / "runs/tiny"
    shutil.copytree(finished, run)
    own = ["notes.txt", "fold0/plot.png", "search/my.png", "search/trials/first/x", "fold0/resume/keep", "photos/a.jpg"]
    for name in [*own, "search/trials/3/fold0/done.json"]:
        put(run / name)
    link(run / "photos/more", workplace / "data")
    link(run / "readme", workplace / "tiny.yaml")
    data, text = snapshot(workplace / "data"), tiny_config.read_text()
    weights = (run / "fold0/weights.safetensors").stat().st_ino
    assert cv(monkeypatch, tiny_config, "--fresh") == 0
    assert [name for name in own if (run / name).read_text() != "mine"] == []
    assert (run / "fold0/weights.safetensors").stat().st_ino != weights
    assert not (run / "search/trials/3").exists()
    assert snapshot(workplace / "data") == data
    assert tiny_config.read_text() == text
    assert (run / "readme").is_symlink()


def test_file_links_in_a_run_are_replaced_and_never_written_through(
    finished: Path, tiny_config: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = workplace / "runs/tiny"
    shutil.copytree(finished, run)
    names = ["config.yaml", "scores.json", "thresholds.json", "oof.parquet", "folds.csv", "data.json", "audit.json"]
    for name in [*names, "submission.csv", "test.parquet", "fold0/oof.parquet", "fold0/done.json"]:
        place, own = run / name, workplace / "own" / name
        own.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            shutil.copy(place, own)
            place.unlink()
        else:
            put(own)
        link(place, own)
    before = snapshot(workplace / "own")
    assert cv(monkeypatch, tiny_config, "predict.tta=[identity,hflip]") == 0
    assert verb("check", tiny_config) == 0
    assert submission(monkeypatch, "runs/tiny") == 0
    assert snapshot(workplace / "own") == before
    assert [name for name in names if (run / name).is_symlink()] == []


def test_a_run_whose_folder_is_a_link_stays_usable_after_fresh(
    tiny_config: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "disk").mkdir()
    link(workplace / "runs/tiny", workplace / "disk/big")  # leads nowhere yet
    for words in ((), ("--fresh",), ()):
        assert cv(monkeypatch, tiny_config, *words) == 0
        assert (workplace / "runs/tiny").is_symlink()
    assert submission(monkeypatch, "runs/tiny") == 0
    assert (workplace / "disk/big/submission.csv").exists()


def test_fresh_is_refused_while_another_command_works_on_the_run(
    finished: Path,
    tiny_config: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(finished, workplace / "runs/tiny")
    script = (
        "import sys, time; from pathlib import Path; from pipeline.run.folder import RunFolder\n"
        "with RunFolder(Path('runs/tiny')).in_use(): print('held', flush=True); time.sleep(600)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        before = snapshot(workplace / "runs/tiny/fold0")
        for words in (("--fresh",), ("--fresh", "--search", "search.trials=1")):
            assert cv(monkeypatch, tiny_config, *words) == 2
            assert "another command works on it" in capsys.readouterr().err
            assert snapshot(workplace / "runs/tiny/fold0") == before
        assert cv(monkeypatch, tiny_config) == 0  # both may use it
    finally:
        other.kill()
        other.communicate()
    assert cv(monkeypatch, tiny_config, "--fresh") == 0  # a lock of the dead holds nobody up


@pytest.mark.parametrize("after", range(1, 12, 2))
@pytest.mark.parametrize("words", [(), ("--search", "search.trials=1", "search.epochs=1")])
def test_after_a_fresh_that_was_killed_the_next_command_starts_over(
    after: int,
    words: tuple[str, ...],
    finished: Path,
    tiny_config: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = RunFolder(workplace / "runs/tiny")
    shutil.copytree(finished, run.path)
    unlink, deleted = Path.unlink, 0

    class Killed(BaseException):
        pass

    def killed(path: Path, missing_ok: bool = False) -> None:
        nonlocal deleted
        if run.path in path.absolute().parents and not path.name.startswith(".writing-"):
            deleted += 1
            if deleted == after:
                raise Killed
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(Killed):
            cv(monkeypatch, tiny_config, "--fresh", "train.lr=1.0e-3")
    if not words:
        assert cv(monkeypatch, tiny_config, "train.lr=1.0e-3", "--folds", "finished") == 0  # trains none, finds none
        assert not run.fold(0).weights.exists()
    assert cv(monkeypatch, tiny_config, "train.lr=1.0e-3", *words) == 0
    assert run.read_config().train.lr == 1e-3
    assert len((run.fold(0).epochs).read_text().splitlines()) == 2
    assert (run.fold(0).oof).read_bytes() != (finished / "fold0/oof.parquet").read_bytes()


HEADER = "id,red,green,blue\n"


@pytest.mark.parametrize(
    ("out", "theirs"),
    [
        ("data/train.csv", {}),
        ("data/sample_submission.csv", {}),
        ("data/answers.csv", {"data/answers.csv": HEADER + "a,1,0,1\n"}),
        ("out.csv", {"out.csv": "name,age\nAnn,7\n"}),
        ("out.csv", {"out.parquet": "mine"}),
        ("out.csv", {"out.broken.csv": "id,problem\n"}),
        ("runs/tiny/test.csv", {}),
        ("runs/tiny/fold0/oof.csv", {}),
        ("runs/second/submission.csv", {"runs/second/run.json": '{"made_by": "q2l-pipeline"}'}),
    ],
)
def test_out_never_replaces_a_persons_file_nor_one_of_a_run(
    out: str,
    theirs: dict[str, str],
    finished: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(finished, workplace / "runs/tiny")
    for name, text in theirs.items():
        put(workplace / name, text)
    before = snapshot(workplace)
    assert submission(monkeypatch, "runs/tiny", "--out", out) == 2
    assert "remedy:" in capsys.readouterr().err
    assert snapshot(workplace) == before


def test_out_replaces_an_earlier_submission_unless_it_was_edited(
    finished: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, workplace / "runs/tiny")
    for _ in range(2):
        assert submission(monkeypatch, "runs/tiny", "--out", workplace / "first.csv") == 0
    with (workplace / "first.csv").open("a") as file:
        file.write("my.own.row,1,1,1\n")
    assert submission(monkeypatch, "runs/tiny", "--out", workplace / "first.csv") == 2


@pytest.mark.parametrize("killed_in", ["write_submission", "write_broken"])
def test_out_goes_on_after_a_kill_between_its_files(
    killed_in: str, finished: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, workplace / "runs/tiny")
    words = ("runs/tiny", "--out", workplace / "first.csv")
    assert submission(monkeypatch, *words) == 0
    header, *rows = (workplace / "data/sample_submission.csv").read_text().splitlines()
    (workplace / "data/sample_submission.csv").write_text("\n".join([header, *reversed(rows)]) + "\n")

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(f"pipeline.run.submission.submit.{killed_in}", kill)
        with pytest.raises(Killed):
            submission(patch, *words)
    assert submission(monkeypatch, *words) == 0
    (workplace / "first.csv").write_text("mine")
    assert submission(monkeypatch, *words) == 2


@pytest.mark.parametrize(
    "place", ["fold0", "fold0/resume", "full", "search", "config.yaml", "oof.parquet", "fold0/done.json", "run.lock"]
)
@pytest.mark.parametrize("kind", ["file", "folder", "pipe", "dangling link"])
def test_something_else_in_the_place_of_our_files_is_refused_before_anything_is_deleted(
    place: str,
    kind: str,
    finished: Path,
    tiny_config: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = workplace / "runs/tiny"
    shutil.copytree(finished, run)
    is_file = "." in place
    if kind == ("file" if is_file else "folder") or (is_file and kind == "dangling link" and place != "run.lock"):
        pytest.skip("this is what the pipeline writes or replaces")
    path = run / place
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    make = {
        "file": lambda: put(path),
        "folder": lambda: path.mkdir(parents=True),
        "pipe": lambda: os.mkfifo(path),
        "dangling link": lambda: link(path, workplace / "nowhere"),
    }
    make[kind]()
    before = snapshot(run)
    for words in ((), ("--fresh",)):
        assert cv(monkeypatch, tiny_config, *words) == 2
        assert "Traceback" not in capsys.readouterr().err
        assert snapshot(run) == before


def test_files_that_the_pipeline_writes_elsewhere_are_kept_in_a_fold(
    finished: Path, tiny_config: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = workplace / "runs/tiny"
    shutil.copytree(finished, run)
    own = ["fold0/train.npy", "fold0/lock", "fold0/config.yaml", "fold007/weights.safetensors", "folds/oof.parquet"]
    for name in own:
        put(run / name)
    assert cv(monkeypatch, tiny_config, "--fresh") == 0
    assert [name for name in own if (run / name).read_text() != "mine"] == []


def test_a_debug_run_never_takes_the_folder_of_a_real_one(
    tiny_config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cv(monkeypatch, tiny_config, "--run", "tiny-debug") == 2
    assert "names that end with -debug are for --debug runs" in capsys.readouterr().err


def test_of_two_commands_that_start_over_at_once_one_is_refused(
    tiny_config: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(Path("runs/tiny"))
    in_use = RunFolder.in_use

    def other_command_first(folder: RunFolder) -> Any:
        monkeypatch.setattr(RunFolder, "in_use", in_use)
        assert cv(monkeypatch, tiny_config, "--fresh", "train.lr=7.0e-3") == 0
        return in_use(folder)

    monkeypatch.setattr(RunFolder, "in_use", other_command_first)
    assert cv(monkeypatch, tiny_config, "--fresh", "train.lr=1.0e-3") == 2
    assert "train.lr" in capsys.readouterr().err
    assert run.read_config().train.lr == 7e-3


def test_a_database_of_another_program_is_no_place_for_a_study(
    tiny_config: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.closing(sqlite3.connect(workplace / "mine.db")) as database:
        database.execute("CREATE TABLE studies (mine TEXT)")
    before = (workplace / "mine.db").read_bytes()
    assert cv(monkeypatch, tiny_config, "--search", "search.storage=sqlite:///mine.db") == 2
    assert "the database of another program" in capsys.readouterr().err
    assert (workplace / "mine.db").read_bytes() == before


def test_a_figure_replaces_only_a_figure_of_ours(tmp_path: Path) -> None:
    for _ in range(2):
        save_figure(Figure(figsize=(1, 1)), tmp_path / "ours.png")
    Figure(figsize=(1, 1)).savefig(tmp_path / "photo.png")
    (tmp_path / "notes.png").write_text("mine")
    for name in ("photo.png", "notes.png"):
        with pytest.raises(RunError, match="is there already"):
            save_figure(Figure(), tmp_path / name)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_threshold_that_is_no_number_is_refused(
    number: str, finished: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(workplace / "runs/tiny")
    shutil.copytree(finished, run.path)
    facts = read_json(run.thresholds)
    facts["values"]["green"] = 0.123456
    write_json(run.thresholds, facts)
    run.thresholds.write_text(run.thresholds.read_text().replace("0.123456", number))
    assert submission(monkeypatch, run.path) == 2
    assert "is not a finite number" in capsys.readouterr().err
    assert not run.submission.exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_weights_that_give_no_numbers_are_refused(
    value: float, finished: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(workplace / "runs/tiny")
    shutil.copytree(finished, run.path)
    tensors = load_file(run.fold(1).weights)
    facts = json.dumps(_facts(run.fold(1).weights))
    for name, tensor in tensors.items():
        if name.startswith("classifier") or (value == 3e38 and tensor.dtype == torch.float32):
            tensor.view(-1)[0] = value
    save_file(tensors, run.fold(1).weights, metadata={"facts": facts})
    assert submission(monkeypatch, run.path) == 2
    assert "not finite numbers" in capsys.readouterr().err
    assert not run.submission.exists()


def _facts(path: Path) -> object:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["facts"])
