"""The folder of a run: the names of its files, and which command may write to it."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from filelock import ReadWriteLock, Timeout

from pipeline.config import Config, changed_training_keys, check_config, dump_config, parse_yaml
from pipeline.config.training import TrainConfig
from pipeline.errors import ConfigError, RunError, listing
from pipeline.events import Fold
from pipeline.files import (
    delete_files,
    entries,
    is_temporary,
    parse_json,
    read_text,
    remove_leftovers,
    write_json,
    write_text,
)
from pipeline.run.search_folder import FOLD, SEARCH_FILES, SearchFolder
from pipeline.training.fold_folder import EXPORT_FILES, FOLD_FILES, RESUME_FILES, FileName, FoldFolder

_LOCK_SECONDS = 2
_DEBUG = "-debug"
_MARK = {"made_by": "q2l-pipeline"}
_RUN_FILES = frozenset(
    {"config.yaml", "environment.json", "folds.csv", "data.json", "audit.json", "oof.parquet"}
    | {"thresholds.json", "scores.json", "test.parquet", "submission.csv", "decided.parquet", "submission.json"}
    | {"submission.broken.csv", "blend.json", "blend.parquet", "report.html", "tracking.json", "autopilot.json"}
    | EXPORT_FILES
)
_FILES = _RUN_FILES | SEARCH_FILES | FOLD_FILES | RESUME_FILES | {"run.json", "run.lock"}
_WRITTEN_IN_PLACE = frozenset({"lock", "study.db", "run.lock"})  # others get their name when whole
_LONGEST_NAME = 200  # bytes; the disk's limit is 255, with room for the names of temporary files


@dataclass(frozen=True)
class RunFolder:
    """The files of one run; `home` is the folder that holds it, or the link to it."""

    path: Path
    home: Path | None = None

    mark = FileName("run.json")  # written first: only where it is may the files of a run be deleted
    _lock = FileName("run.lock")
    config = FileName("config.yaml")  # the complete and resolved configuration
    environment = FileName("environment.json")  # versions, hardware, seed and git commit
    folds = FileName("folds.csv")  # the id, group and fold of each training row
    data = FileName("data.json")  # see `DataDigest`
    audit = FileName("audit.json")  # the findings of an audit; a folder may hold it before it is a run
    oof = FileName("oof.parquet")  # the id, fold and one probability per label of each validated row
    thresholds = FileName("thresholds.json")  # see `Thresholds`
    scores = FileName("scores.json")  # see `Scores`
    test = FileName("test.parquet")  # the id and one probability per label of each test row
    submission = FileName("submission.csv")  # the validated submission
    decided = FileName("decided.parquet")  # per test row what the metric scores: decisions, or calibrated probabilities
    submitted = FileName("submission.json")  # see `SubmissionRecord`; written last of the four
    blend = FileName("blend.json")  # see `BlendRecord`; written last of a blend
    blended = FileName("blend.parquet")  # the id and one probability per label of each test row; marks a blend
    tracking = FileName("tracking.json")  # see `Tracked`
    report = FileName("report.html")  # a page for a person to read
    autopilot = FileName("autopilot.json")  # see `Autopilot`; the folder then holds no run, but the best submission

    @classmethod
    def named(cls, name: str, *, debug: bool = False) -> Self:
        """The run `name` in `runs/`, or its `--debug` run, which has a folder of its own.

        Raises:
            ConfigError: `name` is not the plain name of a folder, or is one of a `--debug` run.
        """
        plain = name.isprintable() and name.strip() and not name.startswith(".") and not {*name} & {*"/\\"}
        if not plain or len(os.fsencode(name)) > _LONGEST_NAME:
            raise ConfigError(
                f"--run {name!a} is not the name of a run",
                expected=f"one printable name of at most {_LONGEST_NAME} bytes, for a folder in runs/",
                remedy="give a name such as --run second; to keep a run elsewhere, make its folder a link",
            )
        if name.endswith(_DEBUG):
            raise ConfigError(
                f"--run {name}: names that end with {_DEBUG} are for --debug runs, which are deleted at each start",
                remedy="give another --run NAME",
            )
        return cls.at(Path("runs") / (name + (_DEBUG if debug else "")))

    @classmethod
    def at(cls, path: Path) -> Self:
        """The run in the folder `path`; where that is a link, in the folder it leads to."""
        return cls(Path(os.path.realpath(path)), path.parent) if path.is_symlink() else cls(path)

    @property
    def cache(self) -> Path:
        """The cache of decoded images, for this run and those beside it."""
        return (self.home or self.path.parent) / ".cache"

    @property
    def search(self) -> SearchFolder:
        """The folder of the search."""
        return SearchFolder(self.path / "search")

    def fold(self, fold: Fold) -> FoldFolder:
        """The folder of a fold, or of the full fit."""
        return FoldFolder(self.path / (fold if fold == "full" else f"fold{fold}"))

    def has_trainings(self) -> bool:
        """Whether the training of some fold has begun."""
        return any(FoldFolder(path).is_begun() for path in entries(self.path, FOLD))

    def finished_folds(self, train: TrainConfig) -> list[int]:
        """The predicted folds that have a model for each of `train.seeds`, ascending; none if it is being deleted."""
        if self._is_being_deleted():
            return []
        return [number for number in self._predicted_folds() if self.fold(number).is_trained(train)]

    def folds_lacking_models(self, train: TrainConfig) -> list[int]:
        """The predicted folds that have fewer models than `train.seeds` asks for, ascending."""
        return [number for number in self._predicted_folds() if not self.fold(number).is_trained(train)]

    def _predicted_folds(self) -> list[int]:
        names = (path.parent.name.removeprefix("fold") for path in self.path.glob(f"fold*/{self.fold(0).done.name}"))
        return sorted(int(name) for name in names if name.isdecimal())

    def read_config(self) -> Config:
        """The configuration this run was made with. Raises RunError where the folder holds none."""
        if not os.path.lexists(self.config):
            raise RunError(
                f"{self.path} is not a run folder: it holds no config.yaml",
                remedy="give a folder that run_cv.py made, for example runs/demo",
            )
        text = read_text(self.config)
        try:
            data = parse_yaml(text)
        except ValueError as error:
            raise RunError(f"{self.config}: {error}", remedy="restore the file or start with --fresh") from None
        return check_config(data or {}, source=str(self.config), complete=True)

    def require_ours(self) -> None:
        """Refuse a folder that the pipeline may not write to; it may be missing or empty. Writes nothing.

        Raises:
            RunError: it holds files but no `run.json` of this pipeline; or something else lies where the pipeline would
                write a file or a folder, such as a link.
        """
        if self.path.is_dir() and not self.is_marked():
            others = sorted(path.name for path in self.path.iterdir() if not is_temporary(path.name))
            if others:
                raise RunError(
                    f"{self.path} is not a run folder: it holds files, but no {self.mark.name} of this pipeline",
                    got=listing(others),
                    remedy="give another --run NAME, or move the folder away; if it is a run whose "
                    f"{self.mark.name} was lost, write {json.dumps(_MARK)} into that file",
                )
        elif self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is not a folder", remedy="give another --run NAME, or move it away")
        for folder in self._folders():
            if folder != self.path and (folder.is_symlink() or not folder.is_dir()):
                raise _misplaced(folder, "a folder")
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.name in _FILES and not _is_replaceable(path):
                    raise _misplaced(path, "a file")

    def check(self, config: Config) -> None:
        """Refuse a folder made with other training keys, or one that is no run folder; writes nothing.

        Raises:
            RunError: naming each training key with its old and new value.
        """
        self.require_ours()
        self.check_settings(config)

    def check_settings(self, config: Config) -> None:
        """As `check`, where `require_ours` was asked before."""
        if not self.path.exists() or self._is_being_deleted() or not (self.config.exists() or self.has_trainings()):
            return
        if self.blended.exists():
            raise RunError(f"{self.path} is a blend: nothing is trained in it", remedy="give another --run NAME")
        changed = changed_training_keys(self.read_config(), config)
        if changed:
            keys = "\n".join(f"  - {key}: {old!r} in the run, {new!r} now" for key, (old, new) in changed.items())
            raise RunError(
                f"{self.path} was made with other training settings\n{keys}",
                remedy="give another --run NAME, go back to the old values, or start over with --fresh"
                + ("; --search goes on with the best values of the run's search" if self.search.best.exists() else ""),
            )

    def begin(self, *, fresh: bool) -> bool:
        """Make the folder and mark it as a run; with `fresh`, delete first what the pipeline wrote in it.

        A deletion that was killed is finished.

        Returns:
            Whether an earlier run was deleted.

        Raises:
            RunError: as `require_ours`; the folder cannot be written; with `fresh`, another command works on the run.
        """
        self.require_ours()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written: {error}",
                remedy="choose a writable folder or free some space",
            ) from None
        if not self.is_marked():
            write_json(self.mark, _MARK)
            return False
        if not fresh and not self._is_being_deleted():
            return False
        self._delete()
        return True

    def open(self, config: Config, *, fresh: bool) -> None:
        """Make the folder ready and write `config` into it; with `fresh`, an earlier run is deleted first.

        Raises:
            RunError: as `begin` and `check`.
        """
        self.begin(fresh=fresh)
        self.check_settings(config)
        self.write_config(config)

    def write_config(self, config: Config) -> None:
        """Write `config.yaml`, and delete what dead processes left half written."""
        remove_leftovers(self._folders())
        write_text(self.config, dump_config(config))

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep other commands from deleting the run. Several commands may use it together.

        Raises:
            RunError: another command is deleting it, or as `require_ours`.
        """
        self.require_ours()
        with self._locked(ReadWriteLock(self._lock).read_lock, "another command is deleting it"):
            yield

    def _delete(self) -> None:
        with self._locked(ReadWriteLock(self._lock).write_lock, "another command works on it"):
            write_json(self.mark, {**_MARK, "deleting": True})  # a kill from here on: the next command goes on deleting
            for fold in entries(self.path, FOLD):
                FoldFolder(fold).delete()
            self.search.delete()
            delete_files(self.path, _RUN_FILES)
            write_json(self.mark, _MARK)

    @contextlib.contextmanager
    def _locked(self, lock: Callable[..., AbstractContextManager[None]], why_not: str) -> Iterator[None]:
        try:
            held = contextlib.ExitStack()
            held.enter_context(lock(timeout=_LOCK_SECONDS))
        except Timeout:
            raise RunError(
                f"{self.path} cannot be used now", got=why_not, remedy="wait for the other command or stop it"
            ) from None
        except (OSError, sqlite3.Error) as error:
            raise RunError(
                f"{self._lock} cannot be locked: {error}", remedy="delete this file, or make the folder writable"
            ) from None
        with held:
            yield

    def is_marked(self) -> bool:
        """Whether the folder holds a `run.json` of this pipeline."""
        return self._read_mark() is not None

    def _is_being_deleted(self) -> bool:
        return (self._read_mark() or {}).get("deleting", False) is True

    def _read_mark(self) -> dict[str, Any] | None:
        """The content of the mark; None where there is none, or a file of that name by another program."""
        try:
            mark = parse_json(self.mark.read_text(encoding="utf-8")) if self.mark.is_file() else None
        except (OSError, ValueError, RecursionError):
            return None
        return mark if isinstance(mark, dict) and mark.get("made_by") == _MARK["made_by"] else None

    def _folders(self) -> list[Path]:
        """Every folder of the run that the pipeline writes to, the innermost first; some may be links."""
        folds = [FoldFolder(path) for path in entries(self.path, FOLD)]
        search = self.search.folders() if os.path.lexists(self.search.path) else []
        return [*(path for fold in folds for path in fold.folders()), *search, self.path]


def _is_replaceable(path: Path) -> bool:
    """Whether the pipeline may write its file `path`: it is no folder or pipe, and no link if written in place."""
    if path.name in _WRITTEN_IN_PLACE:
        return path.is_file() and not path.is_symlink()
    return path.is_file() or path.is_symlink()


def _misplaced(path: Path, wanted: str) -> RunError:
    if path.is_symlink():
        return RunError(
            f"{path} is a link, and nothing outside of the run folder is written or deleted",
            got=f"it leads to {path.readlink()}",
            remedy="remove the link; to keep a run on another disk, make the whole run folder a link",
        )
    return RunError(f"{path} is not {wanted}", expected=f"{wanted} of the pipeline", remedy="move it away")
