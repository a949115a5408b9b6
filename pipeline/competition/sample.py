"""What is asked for: the sample submission, and the test rows that must answer it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.competition.csvs import dialect_of, read_table
from pipeline.competition.paths import ImagePaths, image_paths
from pipeline.config import CompetitionConfig
from pipeline.errors import CompetitionError, listing


@dataclass(frozen=True)
class TestTable:
    """The test rows: N unique ids and their image files."""

    __test__ = False  # not a pytest class

    ids: tuple[str, ...]
    paths: tuple[ImagePaths, ...]


@dataclass(frozen=True)
class Sample:
    """The sample submission's header and ids, in its own order."""

    path: Path
    columns: tuple[str, ...]
    ids: tuple[str, ...]


def read_test(competition: CompetitionConfig, sample: Sample) -> TestTable:
    """The test rows: of `competition.test`, else the ids of the sample submission.

    Raises:
        CompetitionError: as `read_train`, and where the test CSV and the sample disagree on the ids.
    """
    if competition.test is None:
        if competition.images.column is not None:
            raise CompetitionError(
                "the test images cannot be found: there is no test CSV to read "
                f"the column '{competition.images.column}' from",
                remedy="set competition.test, or an images.template such as 'test/{id}.jpg'",
            )
        frame = pd.DataFrame({competition.id: list(sample.ids)})
        return TestTable(sample.ids, image_paths(competition, frame, sample.path, test=True))
    path = Path(competition.root) / competition.test
    frame = read_table(path, id_column=competition.id, key="competition.test", dialect=dialect_of(competition))
    ids = tuple(frame[competition.id])
    require_same_ids(sample, ids, other=str(path))
    return TestTable(ids, image_paths(competition, frame, path, test=True))


def read_sample(competition: CompetitionConfig) -> Sample:
    """The sample submission. Raises CompetitionError where it is not set, missing or malformed."""
    if competition.sample_submission is None:
        raise CompetitionError(
            "there is no sample submission to follow",
            remedy="set competition.sample_submission to the organisers' file",
        )
    path = Path(competition.root) / competition.sample_submission
    frame = read_table(
        path, id_column=competition.id, key="competition.sample_submission", dialect=dialect_of(competition)
    )
    return Sample(path, tuple(frame.columns), tuple(frame[competition.id]))


def require_same_ids(sample: Sample, ids: Sequence[str], *, other: str) -> None:
    """Raise CompetitionError unless the sample asks for exactly `ids`, in whatever order."""
    asked, known = set(sample.ids), set(ids)
    if asked == known:
        return
    foreign = [id_ for id_ in sample.ids if id_ not in known]
    unasked = [id_ for id_ in ids if id_ not in asked]
    found = [f"{len(foreign)} ids only in the sample ({listing(foreign)})"] if foreign else []
    found += [f"{len(unasked)} ids only in {other} ({listing(unasked)})"] if unasked else []
    raise CompetitionError(
        f"{sample.path} and {other} do not hold the same ids",
        expected="the same ids in both files",
        got="; ".join(found),
        remedy="use the sample submission that belongs to this test set, or set competition.test: null",
    )
