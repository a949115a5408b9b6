"""The sample submission: the header and ids that a submission must have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.competition.csvs import dialect_of, read_table
from pipeline.config import CompetitionConfig
from pipeline.errors import CompetitionError, listing


@dataclass(frozen=True)
class Sample:
    """The header and ids that a submission must have.

    Attributes:
        path: the file they were read from, for messages.
        columns: the header.
        ids: the cells of the id column, in order: ids of images, or `<id>_<label>` in a long submission.
        id_column: the one of `columns` that holds them.
    """

    path: Path
    columns: tuple[str, ...]
    ids: tuple[str, ...]
    id_column: str = "id"


def read_sample(competition: CompetitionConfig) -> Sample:
    """Read the sample submission. Raises CompetitionError if it is not set, missing or malformed."""
    if competition.sample_submission is None:
        raise CompetitionError(
            "there is no sample submission to follow",
            remedy="set competition.sample_submission to the organisers' file, or submission.columns to its header",
        )
    path = Path(competition.root) / competition.sample_submission
    id_column = competition.sample_id or competition.id
    frame = read_table(path, id_column=id_column, key="competition.sample_submission", dialect=dialect_of(competition))
    return Sample(path, tuple(frame.columns), tuple(frame[id_column]), id_column)


def require_same_ids(path: Path, asked_for: Sequence[str], ids: Sequence[str], *, other: str) -> None:
    """Raise CompetitionError unless the sample at `path` asks for exactly `ids`, in any order."""
    asked, known = set(asked_for), set(ids)
    if asked == known:
        return
    foreign = [id_ for id_ in asked_for if id_ not in known]
    unasked = [id_ for id_ in ids if id_ not in asked]
    found = [f"{len(foreign)} ids only in the sample ({listing(foreign)})"] if foreign else []
    found += [f"{len(unasked)} ids only in {other} ({listing(unasked)})"] if unasked else []
    raise CompetitionError(
        f"{path} and {other} do not hold the same ids",
        expected="the same ids in both files",
        got="; ".join(found),
        remedy="use the sample submission that belongs to this test set, or set competition.test: null",
    )
