"""The folder of a run: the names of its files, and which command may write to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from filelock import ReadWriteLock, Timeout

from pipeline.config import Config, changed_training_keys, check_config, dump_config
from pipeline.config.training import TrainConfig
from pipeline.errors import ConfigError, RunError, listing
from pipeline.events import Fold
from pipeline.files import delete_files, is_temporary, parse_json, remove_leftovers, subfolders, write_json, write_text
from pipeline.run.search_folder import FOLD, SearchFolder
from pipeline.training.fold_folder import FileName, FoldFolder

_LOCK_SECONDS = 2
_MARK = {"made_by": "q2l-pipeline"}
_RUN_FILES = frozenset(
    {"config.yaml", "environment.json", "folds.csv", "data.json", "images.json", "audit.json", "oof.parquet"}
    | {"thresholds.json", "scores.json", "test.parquet", "submission.csv", "decided.parquet", "submission.json"}
    | {"submission.broken.csv"}
)
_WRITTEN_IN_PLACE = ("lock", "study.db", "goes_on", "run.lock")  # all others get their name when they are whole


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    mark = FileName("run.json")  # written first: only where it is may the files of a run be deleted
    _lock = FileName("run.lock")
    config = FileName("config.yaml")  # the complete and resolved configuration
    environment = FileName("environment.json")  # versions, hardware, seed and git commit
    folds = FileName("folds.csv")  # the id, group and fold of each training row
    data = FileName("data.json")  # see `DataDigest`
    images = FileName("images.json")  # the kind of pixels of all trainings; written before the first one begins
    audit = FileName("audit.json")  # the findings of an audit; a folder may hold it before it is a run
    oof = FileName("oof.parquet")  # the id, fold and one probability per label of each validated row
    thresholds = FileName("thresholds.json")  # see `Thresholds`
    scores = FileName("scores.json")  # see `Scores`
    test = FileName("test.parquet")  # the id and one probability per label of each test row
    submission = FileName("submission.csv")  # the validated submission
    decided = FileName("decided.parquet")  # per test row what the metric scores: decisions, or calibrated probabilities
    submitted = FileName("submission.json")  # see `SubmissionRecord`; written last of the four

    @classmethod
    def named(cls, name: str, *, root: Path = Path("runs")) -> Self:
        """The run `name` in `root`. Raises ConfigError where `name` is not the plain name of a folder."""
        if name.startswith(".") or not name.strip() or {*name} & {*"/\\\0"}:
            raise ConfigError(
                f"--run {name!r} is not the name of a run",
                expected=f"one name, for a folder in {root}/",
                remedy="give a name such as --run second; to keep a run elsewhere, make its folder a link",
            )
        return cls.at(root / name)

    @classmethod
    def at(cls, path: Path) -> Self:
        """The run in the folder `path`; where that is a link, in the folder it leads to."""
        return cls(path.resolve() if path.is_symlink() else path)

    @property
    def cache(self) -> Path:
        """The cache of decoded images, for this run and those beside it."""
        return self.path.parent / ".cache"

    @property
    def search(self) -> SearchFolder:
        """The folder of the search."""
        return SearchFolder(self.path / "search")

    def fold(self, fold: Fold) -> FoldFolder:
        """The folder of a fold, or of the full fit."""
        return FoldFolder(self.path / (fold if fold == "full" else f"fold{fold}"))

    def has_trainings(self) -> bool:
        """Whether the training of some fold has begun."""
        return any(FoldFolder(path).is_begun() for path in subfolders(self.path, FOLD))

    def finished_folds(self, train: TrainConfig) -> list[int]:
        """The predicted folds that have a model for each of `train.seeds`, ascending."""
        return [number for number in self._predicted_folds() if self.fold(number).is_trained(train)]

    def folds_lacking_models(self, train: TrainConfig) -> list[int]:
        """The predicted folds that have fewer models than `train.seeds` asks for, ascending."""
        return [number for number in self._predicted_folds() if not self.fold(number).is_trained(train)]

    def _predicted_folds(self) -> list[int]:
        names = (path.parent.name.removeprefix("fold") for path in self.path.glob(f"fold*/{self.fold(0).done.name}"))
        return sorted(int(name) for name in names if name.isdecimal())

    def read_config(self) -> Config:
        """The configuration this run was made with. Raises RunError where the folder holds none."""
        try:
            data = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(
                f"{self.path} is not a run folder: it holds no config.yaml",
                remedy="give a folder that run_cv.py made, for example runs/demo",
            ) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RunError(
                f"{self.config}: not readable as YAML: {error}",
                remedy="restore the file or start with --fresh",
            ) from None
        return check_config(data or {}, source=str(self.config))

    def require_ours(self) -> None:
        """Refuse a folder that the pipeline may not write to; it may be missing or empty. Writes nothing.

        Raises:
            RunError: it holds files but no `run.json` of this pipeline, or a link where the pipeline would write.
        """
        if self.path.is_dir() and not self._has_mark():
            others = sorted(path.name for path in self.path.iterdir() if not is_temporary(path.name))
            if others:
                raise RunError(
                    f"{self.path} is not a run folder: it holds files, but no {self.mark.name} of this pipeline",
                    got=listing(others),
                    remedy="give another --run NAME, or move the folder away",
                )
        elif self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is not a folder", remedy="give another --run NAME, or move it away")
        for folder in self._folders():
            links = [path for path in (folder, *(folder / name for name in _WRITTEN_IN_PLACE)) if path.is_symlink()]
            if links and links[0] != self.path:
                raise RunError(
                    f"{links[0]} is a link, and nothing outside of the run folder is written or deleted",
                    got=f"it leads to {links[0].readlink()}",
                    remedy="remove the link; to keep a run on another disk, make the whole run folder a link",
                )

    def check(self, config: Config) -> None:
        """Refuse a folder made with other training keys, or one that is no run folder; writes nothing.

        Raises:
            RunError: naming each training key with its old and new value.
        """
        self.require_ours()
        self._check_settings(config)

    def _check_settings(self, config: Config) -> None:
        if not self.path.exists() or self._is_being_deleted() or not (self.config.exists() or self.has_trainings()):
            return
        changed = changed_training_keys(self.read_config(), config)
        if changed:
            keys = "\n".join(f"  - {key}: {old!r} in the run, {new!r} now" for key, (old, new) in changed.items())
            raise RunError(
                f"{self.path} was made with other training settings\n{keys}",
                remedy="give another --run NAME, go back to the old values, or start over with --fresh"
                + ("; --search goes on with the best values of the run's search" if self.search.best.exists() else ""),
            )

    def begin(self, *, fresh: bool) -> None:
        """Make the folder and mark it as a run; with `fresh`, delete first what the pipeline wrote in it.

        A deletion that was killed is finished.

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
        if not self._has_mark():
            write_json(self.mark, _MARK)
        elif fresh or self._is_being_deleted():
            self._delete()

    def open(self, config: Config, *, fresh: bool) -> None:
        """Make the folder ready and write `config` into it; with `fresh`, an earlier run is deleted first.

        Raises:
            RunError: as `begin` and `check`.
        """
        self.begin(fresh=fresh)
        self._check_settings(config)
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
            for fold in subfolders(self.path, FOLD):
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
        with held:
            yield

    def _has_mark(self) -> bool:
        return self._read_mark() is not None

    def _is_being_deleted(self) -> bool:
        return (self._read_mark() or {}).get("deleting", False) is True

    def _read_mark(self) -> dict[str, Any] | None:
        """The content of the mark; None where there is none, or a file of that name by another program."""
        try:
            mark = parse_json(self.mark.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return mark if isinstance(mark, dict) and mark.get("made_by") == _MARK["made_by"] else None

    def _folders(self) -> list[Path]:
        """Every folder of the run that the pipeline writes to, the innermost first; some may be links."""
        folds = [FoldFolder(path) for path in subfolders(self.path, FOLD)]
        search = self.search.folders() if self.search.path.is_dir() else []
        return [*(path for fold in folds for path in fold.folders()), *search, self.path]
