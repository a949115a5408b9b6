"""The files of one trained fold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.training import TrainConfig
from pipeline.files import delete_files, subfolders

_RESUME_FILES = frozenset({"checkpoint.safetensors", "best.safetensors", "lock", "owner.json"})


_FOLD_FILES = frozenset({"weights.safetensors", "epochs.jsonl", "oof.parquet", "done.json"})


_PROXY_FILES = frozenset({"train.npy", "validation.npy", "lock"})


@dataclass(frozen=True)
class FoldFolder:
    """The files of one fold, or of the full fit; `done` is written last and says that all others are complete."""

    path: Path

    def seed_models(self, train: TrainConfig) -> tuple[FoldFolder, ...]:
        """Where the models of `train.seeds` lie: the first one here, the others each in a folder of its seed."""
        further = (FoldFolder(self.path / f"seed{train.seed + number}") for number in range(1, train.seeds))
        return (self, *further)

    def is_trained(self, train: TrainConfig) -> bool:
        """Whether the weights of all its models are there."""
        return all(member.weights.exists() for member in self.seed_models(train))

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

    def folders(self) -> list[Path]:
        """Every folder in here that the pipeline writes to, the innermost first; some may be links."""
        seeds = [FoldFolder(path) for path in subfolders(self.path, r"seed\d+")]
        return [*(path for seed in seeds for path in seed.folders()), *subfolders(self.path, "resume"), self.path]

    def is_begun(self) -> bool:
        """Whether a training has left anything here; a folder of that name alone may be anybody's."""
        resume = [self.resume / name for name in _RESUME_FILES]
        return any(path.exists() for path in (*resume, *(self.path / name for name in _FOLD_FILES)))

    def delete_resume(self) -> None:
        """Delete the state of an unfinished training."""
        delete_files(self.resume, _RESUME_FILES)

    def delete(self) -> None:
        """Delete what the pipeline wrote here, and each folder that is empty then."""
        for folder in self.folders():
            delete_files(folder, _RESUME_FILES if folder.name == "resume" else _FOLD_FILES | _PROXY_FILES)
