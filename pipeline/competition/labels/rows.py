"""The input and output of every label format, and the order of the labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.competition.csvs import column_of, dialect_of, read_cells, read_table, with_unique_ids
from pipeline.competition.paths import is_visible
from pipeline.config import CompetitionConfig
from pipeline.errors import CompetitionError, listing, nearest
from pipeline.events import Listener, Note

Targets = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """N labelled images.

    Attributes:
        frame: N rows of text cells, the ids in the competition's id column, other columns as in the file.
        labels: K distinct names.
        targets: float32 (N, K) in [0, 1]; NaN where unknown.
    """

    frame: pd.DataFrame
    labels: tuple[str, ...]
    targets: Targets


@dataclass(frozen=True)
class Source:
    """The file that labels are read from, and its settings.

    Attributes:
        competition: how the files are written.
        path: the table, the annotation JSON, or the folder of class files.
        key: the config key of this path, for remedies.
        known: the labels in their order, as for a test set's answers; None to find them.
        sample: the sample submission's columns beside the id; empty without a sample.
        listen: gets a note on each guess, change and omission.
    """

    competition: CompetitionConfig
    path: Path
    key: str
    known: tuple[str, ...] | None
    sample: tuple[str, ...]
    listen: Listener

    @property
    def root(self) -> Path:
        """The folder that other files are relative to."""
        return Path(self.competition.root)

    def table(self) -> pd.DataFrame:
        """The table with a row per id. Raises CompetitionError as `read_table`."""
        return with_unique_ids(self.cells(), self.competition.id, self.path, self.listen)

    def cells(self) -> pd.DataFrame:
        """The table, in which ids may repeat, with the columns of `competition.join`.

        A path with * names several files with the same columns, whose rows follow each other.

        Raises:
            CompetitionError: as `read_cells`; the files differ in their columns; a row has no partner in the join.
        """
        pattern = "*" in self.path.name and not self.path.exists()
        names = glob(self.path.name, root_dir=self.path.parent) if pattern else []
        paths = [self.path.parent / name for name in sorted(names) if is_visible(name)]
        frames = [self._read(path) for path in paths or [self.path]]
        for path, frame in zip(paths, frames, strict=False):
            if set(frame.columns) != set(frames[0].columns):
                raise CompetitionError(
                    f"{path}: other columns than {paths[0].name}",
                    expected=listing(frames[0].columns, 12),
                    got=listing(frame.columns, 12),
                    remedy=f"correct {self.key}: it may name only tables of one kind",
                )
        if pattern:
            self.listen(Note(f"{self.path}: {len(paths)} tables: {listing(path.name for path in paths)}"))
        return self._joined(pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0])

    def _read(self, path: Path) -> pd.DataFrame:
        header = self.competition.header
        return read_cells(
            path,
            id_column=self.competition.id,
            key=self.key,
            dialect=replace(dialect_of(self.competition), header=None if header is None else tuple(header)),
            listen=self.listen,
        )

    def _joined(self, frame: pd.DataFrame) -> pd.DataFrame:
        join = self.competition.join
        if join is None:
            return frame
        path, key = self.root / join.file, "competition.join"
        dialect = dialect_of(self.competition)
        other = read_table(path, id_column=join.on, key=f"{key}.file", dialect=dialect, listen=self.listen)
        keys = [text.strip() for text in column_of(frame, join.on, path=self.path, key=f"{key}.on")]
        alone = sorted({*keys} - {*other[join.on]})
        if alone:
            raise CompetitionError(
                f"{path}: there is no row for {len(alone)} values of '{join.on}' in {self.path}",
                got=listing(alone),
                remedy=f"add these rows, or correct {key}",
            )
        added = other.set_index(join.on).loc[keys].drop(columns=frame.columns, errors="ignore")
        return pd.concat([frame, added.reset_index(drop=True)], axis=1)


def settle_labels(found: Sequence[str], listed: Sequence[str] | None, source: Source) -> tuple[str, ...]:
    """The labels in their order: those known, else those `listed` in the config, else the columns of a wide sample.

    Without any of these, they are the labels `found` in the data.

    Raises:
        CompetitionError: the data hold a label that is not among them.
    """
    if source.known is not None:
        _refuse_foreign(found, source.known, "give the answers in the format of the training table", source.path)
        return source.known
    if listed is not None:
        remedy = "add it to competition.labels.classes, or to empty_tokens if it means none"
        _refuse_foreign(found, listed, remedy, source.path)
        return tuple(listed)
    if set(source.sample) & set(found):
        remedy = "list it in competition.labels.empty_tokens if it means none, or list all labels in classes"
        _refuse_foreign(found, source.sample, remedy, source.path)
        return source.sample
    return tuple(found)


def _refuse_foreign(found: Sequence[str], labels: Collection[str], remedy: str, path: Path) -> None:
    known = set(labels)
    foreign = [name for name in found if name not in known]
    if foreign:
        raise CompetitionError(
            f"{path}: unknown label '{foreign[0]}'{nearest(foreign[0], labels)}",
            expected=f"names out of {listing(labels, 12)}",
            got=listing(foreign),
            remedy=remedy,
        )


def in_order(names: Collection[str]) -> tuple[str, ...]:
    """Names of labels, sorted: by value if all are whole numbers, else alphabetically."""
    if all(name.isascii() and name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (len(name.lstrip("0")), name.lstrip("0"), name)))
    return tuple(sorted(names))
