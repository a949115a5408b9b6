"""The files of one trained fold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.config.after import Engine
from pipeline.config.training import TrainConfig
from pipeline.files import delete_files, entries

RESUME_FILES = frozenset({"checkpoint.safetensors", "best.safetensors", "lock", "owner.json"})
EXPORT_FILES = frozenset({"model.onnx", "model.xml", "model.bin"})
FOLD_FILES = frozenset({"weights.safetensors", "epochs.jsonl", "oof.parquet", "done.json"} | EXPORT_FILES)
NUMBER = "(?:0|[1-9][0-9]*)"
"""A number in the name of a folder, as a regular expression."""


class _HasPath(Protocol):
    @property
    def path(self) -> Path: ...


class FileName:
    """An attribute of a folder: the path of the file of this name in it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: _HasPath, _: type) -> Path:
        return folder.path / self.name


@dataclass(frozen=True)
class FoldFolder:
    """The files of one fold, or of the full fit; `done` is written last, when all others are complete."""

    path: Path

    weights = FileName("weights.safetensors")  # the fold's model; its metadata holds what is needed to use it
    onnx = FileName("model.onnx")  # the same network, exported
    openvino = FileName("model.xml")  # likewise; its numbers are in model.bin
    epochs = FileName("epochs.jsonl")  # a JSON line per epoch
    oof = FileName("oof.parquet")  # the id and one logit per label of each validation row
    done = FileName("done.json")  # see `FoldDone`
    resume = FileName("resume")  # the folder with the state of an unfinished training; gone when the fold is done
    checkpoint = FileName("resume/checkpoint.safetensors")  # the whole training state
    best_weights = FileName("resume/best.safetensors")  # with `train.select: best`, of the best epoch so far
    lock = FileName("resume/lock")  # held by the process that trains this fold
    owner = FileName("resume/owner.json")  # the process that holds the lock, for the message to another one

    def seed_models(self, train: TrainConfig) -> tuple[FoldFolder, ...]:
        """The folders of the models of `train.seeds`: the first one is this one, the others lie in it, by seed."""
        further = (FoldFolder(self.path / f"seed{train.seed + number}") for number in range(1, train.seeds))
        return (self, *further)

    def network(self, engine: Engine) -> Path:
        """The file that `predict.engine` reads."""
        return {"torch": self.weights, "onnxruntime": self.onnx, "openvino": self.openvino}[engine]

    def is_trained(self, train: TrainConfig, engine: Engine = "torch") -> bool:
        """Whether the weights of all its seed models exist; a bundle may hold the files of `engine` instead."""
        return all(model.weights.exists() or model.network(engine).exists() for model in self.seed_models(train))

    def folders(self) -> list[Path]:
        """Every folder in here that the pipeline writes to, the innermost first; some may be links."""
        seeds = [FoldFolder(path) for path in entries(self.path, f"seed{NUMBER}")]
        return [*(path for seed in seeds for path in seed.folders()), *entries(self.path, "resume"), self.path]

    def is_begun(self) -> bool:
        """Whether a training has left files here; the folder alone is no sign of one."""
        resume = [self.resume / name for name in RESUME_FILES]
        return any(path.exists() for path in (*resume, *(self.path / name for name in FOLD_FILES)))

    def delete_resume(self) -> None:
        """Delete the state of an unfinished training."""
        delete_files(self.resume, RESUME_FILES)

    def delete(self) -> None:
        """Delete what the pipeline wrote here, and each folder that is empty then."""
        for folder in self.folders():
            delete_files(folder, RESUME_FILES if folder.name == "resume" else FOLD_FILES)
