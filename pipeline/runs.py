"""A run on disk: the only place that knows the names of files in a run. `files` writes and reads them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipeline.config import Config, changed_training_keys, check_config, dump_config
from pipeline.config.training import TrainConfig
from pipeline.errors import RunError
from pipeline.files import TEMPORARY_PREFIX, remove_leftovers, write_text

FULL_FIT = -1  # in the place of a fold's number: a training on all rows


@dataclass(frozen=True)
class FoldFolder:
    """The files of one fold, or of the full fit; `done` is written last and says that all others are complete."""

    path: Path

    def members(self, train: TrainConfig) -> tuple[FoldFolder, ...]:
        """Where the models of `train.seeds` lie: the first one here, the others each in a folder of its seed."""
        further = (FoldFolder(self.path / f"seed{train.seed + number}") for number in range(1, train.seeds))
        return (self, *further)

    def is_trained(self, train: TrainConfig) -> bool:
        """Whether the weights of all its models are there."""
        return all(member.weights.exists() for member in self.members(train))

    @property
    def weights(self) -> Path:
        """The fold's model, with what is needed to use it in the metadata."""
        return self.path / "weights.safetensors"

    @property
    def epochs(self) -> Path:
        """One JSON line an epoch."""
        return self.path / "epochs.jsonl"

    @property
    def oof(self) -> Path:
        """The id and one logit per label of each validation row."""
        return self.path / "oof.parquet"

    @property
    def done(self) -> Path:
        """How the fold ended: its epoch, and the views its out-of-fold logits were predicted with."""
        return self.path / "done.json"

    @property
    def resume(self) -> Path:
        """The folder with the state of an unfinished training; gone when the fold is done."""
        return self.path / "resume"

    @property
    def checkpoint(self) -> Path:
        """The whole training state after the last finished epoch."""
        return self.resume / "checkpoint.safetensors"

    @property
    def best_weights(self) -> Path:
        """With `train.select: best`, the weights of the best epoch so far."""
        return self.resume / "best.safetensors"

    @property
    def lock(self) -> Path:
        """Held by the process that trains this fold."""
        return self.resume / "lock"

    @property
    def owner(self) -> Path:
        """Which process holds the lock, for the message to another one."""
        return self.resume / "owner.json"


@dataclass(frozen=True)
class SearchFolder:
    """The files of the search that a run began with."""

    path: Path

    @property
    def study(self) -> Path:
        """The study's SQLite file, unless the config names another database."""
        return self.path / "study.db"

    @property
    def lock(self) -> Path:
        """Held while a worker draws or returns a trial."""
        return self.path / "lock"

    @property
    def images(self) -> Path:
        """Which pixels all trials see, exact ones or JPEGs."""
        return self.path / "images.json"

    @property
    def best(self) -> Path:
        """The best values as a config diff."""
        return self.path / "best.yaml"

    @property
    def trials(self) -> Path:
        """One line per trial: state, score, values, seconds."""
        return self.path / "trials.csv"

    def exists(self) -> bool:
        """Whether a search has left anything here; a folder of that name alone may be anybody's."""
        traces = (self.study, self.lock, self.best, self.trials, self.trial(0).parent)
        return any(path.exists() for path in traces)

    def trial(self, number: int) -> Path:
        """Where trial `number` trains; gone when it is over."""
        return self.path / "trials" / str(number)

    def proxy(self, fold: int) -> FoldFolder:
        """The one full training of a fold whose feature maps all heads train on."""
        return FoldFolder(self.path / "proxy" / f"fold{fold}")

    def figure(self, name: str) -> Path:
        """A picture of the study."""
        return self.path / f"{name}.png"


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The complete and resolved configuration."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions, hardware, seed and git commit."""
        return self.path / "environment.json"

    @property
    def folds(self) -> Path:
        """The id, group and fold of each training row."""
        return self.path / "folds.csv"

    @property
    def data(self) -> Path:
        """The labels, and a digest of the targets the run was begun with."""
        return self.path / "data.json"

    @property
    def images(self) -> Path:
        """Which pixels all trainings see, exact ones or JPEGs; written before the first one begins."""
        return self.path / "images.json"

    @property
    def audit(self) -> Path:
        """What an audit found in the data; a folder may hold it before it is a run."""
        return self.path / "audit.json"

    @property
    def oof(self) -> Path:
        """The id, fold and one probability per label of each validated row."""
        return self.path / "oof.parquet"

    @property
    def thresholds(self) -> Path:
        """The policy, the thresholds and their in-sample and cross-fitted scores."""
        return self.path / "thresholds.json"

    @property
    def scores(self) -> Path:
        """Every score of the run, marked in-sample or cross-fitted."""
        return self.path / "scores.json"

    @property
    def test(self) -> Path:
        """The id and one probability per label of each test row, before thresholds."""
        return self.path / "test.parquet"

    @property
    def submission(self) -> Path:
        """The validated submission."""
        return self.path / "submission.csv"

    @property
    def decided(self) -> Path:
        """The id and per label what the metric judges of each test row: decisions, or calibrated probabilities."""
        return self.path / "decided.parquet"

    @property
    def submitted(self) -> Path:
        """What the submission was made with and promised; written last of the four."""
        return self.path / "submission.json"

    @property
    def cache(self) -> Path:
        """Where decoded images are kept for this run and those beside it."""
        return self.path.parent / ".cache"

    @property
    def search(self) -> SearchFolder:
        """The folder of the search."""
        return SearchFolder(self.path / "search")

    def fold(self, number: int) -> FoldFolder:
        """The folder of fold `number`, or of the full fit for `FULL_FIT`."""
        return FoldFolder(self.path / ("full" if number == FULL_FIT else f"fold{number}"))

    def has_trainings(self) -> bool:
        """Whether the training of some fold has begun."""
        return self.fold(FULL_FIT).path.exists() or any(self.path.glob("fold*/"))

    def finished_folds(self, train: TrainConfig) -> list[int]:
        """The folds that were predicted to their end and lack no model of `train.seeds`, ascending."""
        return [number for number in self._predicted_folds() if self.fold(number).is_trained(train)]

    def folds_lacking_models(self, train: TrainConfig) -> list[int]:
        """The folds that were predicted to their end with fewer models than `train.seeds` asks for, ascending."""
        return [number for number in self._predicted_folds() if not self.fold(number).is_trained(train)]

    def _predicted_folds(self) -> list[int]:
        names = (path.parent.name.removeprefix("fold") for path in self.path.glob(f"fold*/{self.fold(0).done.name}"))
        return sorted(int(name) for name in names if name.isdecimal())

    def read_config(self) -> Config:
        """The configuration this run was made with. Raises RunError where the folder holds none."""
        try:
            data = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise self._no_run() from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RunError(
                f"{self.config}: not readable as YAML: {error}",
                remedy="restore the file or start with --fresh",
            ) from None
        return check_config(data or {}, source=str(self.config))

    def _is_bare(self) -> bool:
        """Whether it holds no run yet, only what an audit or a search wrote."""
        whole = (path for path in self.path.iterdir() if not path.name.startswith(TEMPORARY_PREFIX))
        return {*whole} <= {self.audit, self.images, self.search.path}

    @property
    def _deleted(self) -> Path:
        """Where the folder goes before it is deleted: half of it would be no run folder any more."""
        return self.path.with_name(f".deleting-{self.path.name}")

    def _no_run(self) -> RunError:
        return RunError(
            f"{self.path} is not a run folder: it holds no config.yaml",
            remedy="give a folder that run_cv.py made, for example runs/demo",
        )

    def check(self, config: Config) -> None:
        """Refuse a folder made with other training keys, or one that is no run folder; writes nothing.

        Raises:
            RunError: naming each training key with its old and new value.
        """
        if not self.path.exists() or (self.path.is_dir() and self._is_bare()):
            return
        changed = changed_training_keys(self.read_config(), config)
        if changed:
            keys = "\n".join(f"  - {key}: {old!r} in the run, {new!r} now" for key, (old, new) in changed.items())
            raise RunError(
                f"{self.path} was made with other training settings\n{keys}",
                remedy="give another --run NAME, go back to the old values, or start over with --fresh"
                + ("; --search goes on with the best values of the run's search" if self.search.best.exists() else ""),
            )

    def clear(self) -> None:
        """Delete the folder with all that it holds. Raises RunError where that is no run, nor the search for one."""
        self._end_deletion()
        if not self.path.exists():
            return
        if not self._is_bare() and not self.config.exists() and not self.search.exists():
            raise self._no_run()
        self.path.replace(self._deleted)
        self._end_deletion()

    def _end_deletion(self) -> None:
        if self._deleted.exists():
            shutil.rmtree(self._deleted)

    def open(self, config: Config, *, fresh: bool) -> None:
        """Make the folder ready and write `config` into it; with `fresh`, what it held is deleted first.

        Raises:
            RunError: as `check`; with `fresh`, where the folder is not a run folder.
        """
        if fresh:
            self.clear()
        self._end_deletion()  # of a command that was killed
        self.check(config)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.path)
            write_text(self.config, dump_config(config))
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written: {error}",
                remedy="choose a writable folder or free some space",
            ) from None
