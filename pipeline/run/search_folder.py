"""The files of a search, and of its trials, in the folder of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.files import delete_files, entries
from pipeline.training.fold_folder import NUMBER, FileName, FoldFolder

FOLD = f"fold{NUMBER}|full"
"""The names of folders of folds."""

_FIGURES = ("history", "timeline", "slices", "importances", "contour")
SEARCH_FILES = frozenset(
    {"best.yaml", "trials.csv"}
    | {f"study.db{ending}" for ending in ("", "-journal", "-wal", "-shm")}
    | {f"{name}.png" for name in _FIGURES}
)


@dataclass(frozen=True)
class TrialFolder:
    """The folds of one trial of a search."""

    path: Path

    def fold(self, number: int) -> FoldFolder:
        """The folder of fold `number`."""
        return FoldFolder(self.path / f"fold{number}")

    def folders(self) -> list[Path]:
        """Every folder in here that the pipeline writes to, the innermost first; some may be links."""
        folds = [FoldFolder(path) for path in entries(self.path, FOLD)]
        return [*(path for fold in folds for path in fold.folders()), self.path]

    def delete(self) -> None:
        """Delete what the pipeline wrote here, and each folder that is empty then."""
        for fold in entries(self.path, FOLD):
            FoldFolder(fold).delete()
        delete_files(self.path, ())


@dataclass(frozen=True)
class SearchFolder:
    """The files of the search that a run began with."""

    path: Path

    study = FileName("study.db")  # the study in SQLite, unless the config names another database
    best = FileName("best.yaml")  # the best values as a config diff
    trials = FileName("trials.csv")  # one line per trial: state, score, values, seconds

    def trial(self, number: int) -> TrialFolder:
        """The folder of trial `number`; it is gone when the trial is over."""
        return TrialFolder(self.path / "trials" / str(number))

    def begun_trials(self) -> list[TrialFolder]:
        """The trials that are trained now, or have left files behind."""
        return [TrialFolder(path) for path in entries(self.path / "trials", NUMBER)]

    def folders(self) -> list[Path]:
        """Every folder in here that the pipeline writes to, the innermost first; some may be links."""
        return [
            *(path for trial in self.begun_trials() for path in trial.folders()),
            *(path for fold in entries(self.path / "proxy", FOLD) for path in FoldFolder(fold).folders()),
            *entries(self.path, "trials|proxy"),
            self.path,
        ]

    def delete(self) -> None:
        """Delete what the pipeline wrote here, and each folder that is empty then."""
        for trial in self.begun_trials():
            trial.delete()
        for fold in entries(self.path / "proxy", FOLD):
            FoldFolder(fold).delete()
        for folder in entries(self.path, "trials|proxy"):
            delete_files(folder, ())
        delete_files(self.path, SEARCH_FILES)

    def proxy(self, fold: int) -> FoldFolder:
        """The one full training of a fold whose frozen backbone all heads use."""
        return FoldFolder(self.path / "proxy" / f"fold{fold}")

    def figure(self, name: str) -> Path:
        """A picture of the study."""
        return self.path / f"{name}.png"
