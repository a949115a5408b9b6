"""What a label format reads and what it gives, and which labels there are, in which order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.competition.csvs import dialect_of, read_cells, read_table
from pipeline.competition.notes import Tell
from pipeline.config import CompetitionConfig
from pipeline.errors import CompetitionError, listing, nearest

Targets = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """N labelled images.

    Attributes:
        frame: N rows of text cells, the ids in the competition's id column and whatever else the table says.
        labels: K distinct names.
        targets: float32 (N, K) in [0, 1]; NaN where unknown.
    """

    frame: pd.DataFrame
    labels: tuple[str, ...]
    targets: Targets


@dataclass(frozen=True)
class Source:
    """Where labels are read from.

    Attributes:
        competition: how the files are written.
        path: the table, or what takes its place: an annotation JSON, a folder of class files.
        key: the config key that names it, for remedies.
        known: the labels in their order where they are settled, as for a test set's answers; None to find them.
        sample: the sample submission's columns beside the id; none where there is no sample.
        tell: hears what was guessed, skipped or changed.
    """

    competition: CompetitionConfig
    path: Path
    key: str
    known: tuple[str, ...] | None
    sample: tuple[str, ...]
    tell: Tell

    @property
    def root(self) -> Path:
        """What other files are relative to."""
        return Path(self.competition.root)

    def table(self) -> pd.DataFrame:
        """The table with a row per id; raises CompetitionError as `read_table`."""
        return read_table(
            self.path,
            id_column=self.competition.id,
            key=self.key,
            dialect=dialect_of(self.competition),
            tell=self.tell,
        )

    def cells(self) -> pd.DataFrame:
        """The table, whose ids may stand in several rows; raises CompetitionError as `read_cells`."""
        return read_cells(
            self.path,
            id_column=self.competition.id,
            key=self.key,
            dialect=dialect_of(self.competition),
            tell=self.tell,
        )


def settle_labels(found: Sequence[str], listed: Sequence[str] | None, source: Source) -> tuple[str, ...]:
    """The labels in their order: those already known, else those listed in the config, else those of a wide sample.

    Without any of these they are the labels `found` in the data, in that order.

    Raises:
        CompetitionError: the data hold a label that is not among them.
    """
    if source.known is not None:
        _refuse_foreign(found, source.known, "give the answers in the encoding of the training table", source.path)
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
    foreign = [name for name in found if name not in set(labels)]
    if foreign:
        raise CompetitionError(
            f"{path}: unknown label '{foreign[0]}'{nearest(foreign[0], labels)}",
            expected=f"names out of {listing(labels, 12)}",
            got=listing(foreign),
            remedy=remedy,
        )


def in_order(names: Collection[str]) -> tuple[str, ...]:
    """Names of labels in an order of their own: by value where all are whole numbers, else alphabetical."""
    if all(name.isascii() and name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))
