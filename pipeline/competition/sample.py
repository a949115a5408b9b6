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
    """What a submission must look like.

    Attributes:
        path: the file this was read from, for messages.
        columns: the header.
        ids: the cells of the id column, in order: of images, or of rows `<id>_<label>` where the form is long.
        id_column: the one of `columns` that holds them.
    """

    path: Path
    columns: tuple[str, ...]
    ids: tuple[str, ...]
    id_column: str = "id"


def read_test(competition: CompetitionConfig, ids: Sequence[str], path: Path) -> TestTable:
    """The test rows that `ids` ask for, with the files that `competition.test` or a template names.

    Args:
        competition: what to read.
        ids: of images; where there is a test CSV, in its rows' order.
        path: the file that asks for these ids, for messages.

    Raises:
        CompetitionError: as `read_train`, and where the test CSV and `path` disagree on the ids.
    """
    if competition.test is None:
        if competition.images.column is not None:
            raise CompetitionError(
                "the test images cannot be found: there is no test CSV to read "
                f"the column '{competition.images.column}' from",
                remedy="set competition.test, or an images.template such as 'test/{id}.jpg'",
            )
        frame = pd.DataFrame({competition.id: list(ids)})
        return TestTable(tuple(ids), image_paths(competition, frame, path, test=True))
    csv, frame = read_test_csv(competition)
    listed = tuple(frame[competition.id])
    require_same_ids(path, ids, listed, other=str(csv))
    return TestTable(listed, image_paths(competition, frame, csv, test=True))


def read_test_csv(competition: CompetitionConfig) -> tuple[Path, pd.DataFrame]:
    """Where `competition.test` lies, and its rows. Raises CompetitionError as `read_table`."""
    assert competition.test is not None
    path = Path(competition.root) / competition.test
    frame = read_table(path, id_column=competition.id, key="competition.test", dialect=dialect_of(competition))
    return path, frame


def read_sample(competition: CompetitionConfig) -> Sample:
    """The sample submission. Raises CompetitionError where it is not set, missing or malformed."""
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
    """Raise CompetitionError unless the sample at `path` asks for exactly `ids`, in whatever order."""
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
