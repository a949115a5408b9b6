"""Read labels in any format, as the config describes it: ids, labels and targets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.competition.csvs import refuse_unwritable
from pipeline.competition.labels.class_files import read_per_class, read_voc
from pipeline.competition.labels.coco import read_coco
from pipeline.competition.labels.delimited import read_columns, read_delimited
from pipeline.competition.labels.doubts import note_doubts
from pipeline.competition.labels.long import read_long
from pipeline.competition.labels.rows import LabelledRows, Source
from pipeline.competition.labels.wide import read_wide, sample_columns
from pipeline.config import CompetitionConfig
from pipeline.errors import CompetitionError, listing, nearest, repeated_names
from pipeline.events import Listener, Note

RESERVED_LABELS = ("id", "fold")  # columns beside the labels in a run's prediction files

READERS: dict[str, Callable[[Any, Source], LabelledRows]] = {
    "wide": read_wide,
    "delimited": read_delimited,
    "columns": read_columns,
    "long": read_long,
    "coco": read_coco,
    "voc": read_voc,
    "per_class": read_per_class,
}


def read_labels(
    competition: CompetitionConfig, path: Path, *, key: str, listen: Listener, known: tuple[str, ...] | None = None
) -> LabelledRows:
    """Read the labelled images at `path`, in the format that `competition.labels` describes.

    Args:
        competition: how the files are written.
        path: the table, annotation JSON or folder.
        key: the config key of this path, for remedies.
        listen: gets a note on each guess, change and omission.
        known: the labels in their order; None to find them.

    Raises:
        CompetitionError: the file or its labels are wrong.
    """
    source = Source(competition, path, key, known, sample_columns(competition, listen) if known is None else (), listen)
    rows = READERS[competition.labels.format](competition.labels, source)
    refuse_unwritable(rows.labels, path=path, kind="labels")
    refuse_unwritable(rows.frame[competition.id], path=path, kind="ids")
    _check_labels(rows.labels, path)
    _check_exclusive(competition, rows.labels)
    note_doubts(rows, _note_other_columns(competition, rows, source), source)
    unknown = int(np.isnan(rows.targets).all(axis=1).sum())
    if unknown:
        listen(Note(f"{path}: nothing is known of {unknown} rows, so they do not affect training or scores"))
    return rows


def _check_labels(labels: tuple[str, ...], path: Path) -> None:
    reserved = [name for name in labels if name in RESERVED_LABELS]
    repeated = repeated_names(labels)
    if labels and not reserved and not repeated:
        return
    problem = f"a label may not be called '{reserved[0]}'" if reserved else "no labels were found"
    raise CompetitionError(
        f"{path}: the label '{repeated[0]}' occurs twice" if repeated else f"{path}: {problem}",
        remedy="check competition.labels and the columns of the sample submission",
    )


def _check_exclusive(competition: CompetitionConfig, labels: tuple[str, ...]) -> None:
    unknown = [name for names in competition.labels.exclusive for name in names if name not in labels]
    if unknown:
        raise CompetitionError(
            f"competition.labels.exclusive: there is no label '{unknown[0]}'{nearest(unknown[0], labels)}",
            expected=f"labels out of {listing(labels, 12)}",
            remedy="correct the name",
        )


def _note_other_columns(competition: CompetitionConfig, rows: LabelledRows, source: Source) -> list[str]:
    """Note and return the columns that are not used: one may be a label that was forgotten."""
    config: Any = competition.labels
    used = {
        competition.id,
        competition.images.column,
        "file_name" if config.format == "coco" else None,
        *(getattr(group, key, None) for group in competition.groups or () for key in ("column", "within")),
        getattr(config, "column", None),
        getattr(config, "label_column", None),
        *(rows.labels if config.format == "wide" else ()),
        *(config.columns if config.format == "columns" else ()),
    }
    others = [name for name in rows.frame.columns if name not in used]
    if others:
        source.listen(Note(f"{source.path}: columns that are not labels: {listing(others, 12)}"))
    return others
