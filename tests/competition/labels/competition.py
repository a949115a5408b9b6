"""Small competitions on disk, as text, for the tests of label formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.competition.labels import LabelledRows, read_labels
from pipeline.competition.table import TrainTable, read_train
from pipeline.config import CompetitionConfig
from pipeline.events import ignore, notes_into


def competition(root: Path, labels: dict[str, Any], **keys: Any) -> CompetitionConfig:
    """A competition in `root` with images by template."""
    images = {"template": "{id}"}
    return CompetitionConfig.model_validate({"root": str(root), "images": images, "labels": labels, **keys})


def read_noted(root: Path, labels: dict[str, Any], files: dict[str, str], **keys: Any) -> tuple[TrainTable, str]:
    """The training table of `files`, written to `root`, and all notes, one a line."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    notes: list[str] = []
    table = read_train(competition(root, labels, **keys), notes_into(notes))
    return table, "\n".join(notes)


def read(root: Path, labels: dict[str, Any], files: dict[str, str], **keys: Any) -> TrainTable:
    """The table alone."""
    return read_noted(root, labels, files, **keys)[0]


def rows_of(root: Path, path: Path, labels: dict[str, Any], known: tuple[str, ...] | None = None) -> LabelledRows:
    """The labelled rows at `path`."""
    return read_labels(competition(root, labels), path, key="k", listen=ignore, known=known)
