"""The competition's CSVs as tables: ids, image files, targets, groups. No pixels, no model."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.competition.labels import decode_delimited, decode_wide, label_names
from pipeline.competition.paths import paths_from_column, paths_from_template
from pipeline.config import CompetitionConfig, DelimitedLabels
from pipeline.errors import CompetitionError, listing, nearest

RESERVED_LABELS = ("id", "fold")  # the columns that stand beside the labels in a run's prediction files


@dataclass(frozen=True)
class TrainTable:
    """The training rows; everything is in the order of `ids`.

    Attributes:
        ids: N unique strings.
        paths: N image files.
        targets: float32 (N, K), 0 or 1.
        labels: K names in the submission's order.
        groups: N group names, or None.
    """

    ids: tuple[str, ...]
    paths: tuple[Path, ...]
    targets: NDArray[np.float32]
    labels: tuple[str, ...]
    groups: tuple[str, ...] | None


@dataclass(frozen=True)
class TestTable:
    """The test rows: N unique ids and their image files."""

    __test__ = False  # not a pytest class

    ids: tuple[str, ...]
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Sample:
    """The sample submission's header and ids, in its own order."""

    path: Path
    columns: tuple[str, ...]
    ids: tuple[str, ...]


def read_train(competition: CompetitionConfig) -> TrainTable:
    """The training table. Raises CompetitionError for a missing file or column, bad cells, duplicate ids."""
    path = Path(competition.root) / competition.train
    frame = read_table(path, id_column=competition.id, key="competition.train")
    ids = tuple(frame[competition.id])
    if isinstance(competition.labels, DelimitedLabels):
        cells = _column(frame, competition.labels.column, path=path, key="competition.labels.column")
        labels = label_names(cells, competition.labels.separator)
        targets = decode_delimited(cells, labels, competition.labels.separator)
    else:
        labels = tuple(competition.labels.columns or _sample_labels(competition))
        targets = decode_wide(frame, labels, path=path, id_column=competition.id)
    _check_labels(labels, path)
    groups = None
    if competition.groups is not None:
        groups = tuple(_column(frame, competition.groups.column, path=path, key="competition.groups.column"))
        _check_no_blank(groups, ids, path=path, column=competition.groups.column)
    return TrainTable(ids, _image_paths(competition, frame, path, test=False), targets, labels, groups)


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
        return TestTable(sample.ids, _image_paths(competition, frame, sample.path, test=True))
    path = Path(competition.root) / competition.test
    frame = read_table(path, id_column=competition.id, key="competition.test")
    ids = tuple(frame[competition.id])
    require_same_ids(sample, ids, other=str(path))
    return TestTable(ids, _image_paths(competition, frame, path, test=True))


def read_sample(competition: CompetitionConfig) -> Sample:
    """The sample submission. Raises CompetitionError where it is not set, missing or malformed."""
    if competition.sample_submission is None:
        raise CompetitionError(
            "there is no sample submission to follow",
            remedy="set competition.sample_submission to the organisers' file",
        )
    path = Path(competition.root) / competition.sample_submission
    frame = read_table(path, id_column=competition.id, key="competition.sample_submission")
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


def read_table(path: Path, *, id_column: str, key: str) -> pd.DataFrame:
    """A CSV with every cell as a string ("" where empty) and unique, non-blank ids in `id_column`.

    Args:
        path: the file, UTF-8 with or without a byte order mark.
        id_column: the column that must be there.
        key: the config key that names this file, for the error's remedy.

    Raises:
        CompetitionError: missing, not UTF-8, not a table, a repeated column name, no or duplicate ids.
    """
    header, *rows = _read_rows(path, key)
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise CompetitionError(
            f"{path}: the header repeats {listing(repeated)}", remedy="give each column a name of its own"
        )
    frame = pd.DataFrame(rows, columns=header, dtype=str)
    ids = list(_column(frame, id_column, path=path, key="competition.id"))
    _check_no_blank(ids, [f"row {row}" for row in range(1, len(ids) + 1)], path=path, column=id_column)
    duplicates = frame[id_column][frame[id_column].duplicated()].unique()
    if len(duplicates):
        raise CompetitionError(
            f"{path}: {len(duplicates)} ids occur more than once",
            expected=f"unique values in column '{id_column}'",
            got=listing(duplicates),
            remedy="keep one row per id, or set competition.id to the column that is unique",
        )
    if not ids:
        raise CompetitionError(f"{path}: the table has no rows", remedy="give the complete file")
    return frame


def _read_rows(path: Path, key: str) -> list[list[str]]:
    """The header and all other rows that are not blank, each as long as the header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(line, row) for line, row in enumerate(csv.reader(file, strict=True), start=1) if row]
    except FileNotFoundError:
        raise CompetitionError(
            f"{path}: no such file", remedy=f"put the file there, or correct competition.root or {key}"
        ) from None
    except UnicodeDecodeError as error:
        raise CompetitionError(f"{path}: not UTF-8: {error}", remedy="save the file as UTF-8") from None
    except (OSError, csv.Error) as error:
        raise CompetitionError(
            f"{path}: not readable as a CSV table: {error}", remedy=f"check the file or correct {key}"
        ) from None
    if not rows:
        raise CompetitionError(f"{path}: the file is empty", remedy="give the complete file")
    width = len(rows[0][1])
    uneven = [f"row {line} has {len(row)}" for line, row in rows if len(row) != width]
    if uneven:
        raise CompetitionError(
            f"{path}: not a table: {len(uneven)} rows are longer or shorter than the header",
            expected=f"{width} cells in every row",
            got=listing(uneven),
            remedy="quote cells that hold commas, and remove cells beyond the header",
        )
    return [row for _, row in rows]


def _sample_labels(competition: CompetitionConfig) -> tuple[str, ...]:
    columns = read_sample(competition).columns
    return tuple(name for name in columns if name != competition.id)


def _column(frame: pd.DataFrame, name: str, *, path: Path, key: str) -> list[str]:
    if name not in frame.columns:
        raise CompetitionError(
            f"{path}: there is no column '{name}'{nearest(name, frame.columns)}",
            expected=f"the column that {key} names",
            got=f"columns {listing(frame.columns, 12)}",
            remedy=f"correct {key} or the file",
        )
    return frame[name].tolist()


def _check_no_blank(values: Sequence[str], rows: Sequence[str], *, path: Path, column: str) -> None:
    blank = [row for value, row in zip(values, rows, strict=True) if not value.strip()]
    if blank:
        raise CompetitionError(
            f"{path}: column '{column}' is empty in {len(blank)} rows: {listing(blank)}",
            remedy="fill these cells or remove the rows",
        )


def _check_labels(labels: Sequence[str], path: Path) -> None:
    reserved = [name for name in labels if name in RESERVED_LABELS]
    if not labels or reserved:
        raise CompetitionError(
            f"{path}: no labels were found" if not labels else f"{path}: a label may not be called '{reserved[0]}'",
            remedy="check competition.labels and the columns of the sample submission",
        )


def _image_paths(competition: CompetitionConfig, frame: pd.DataFrame, path: Path, *, test: bool) -> tuple[Path, ...]:
    images = competition.images
    if images.template is None:
        assert images.column is not None  # the schema holds exactly one of the two
        values = _column(frame, images.column, path=path, key="competition.images.column")
        _check_no_blank(values, frame[competition.id].tolist(), path=path, column=images.column)
        return paths_from_column(values, csv=path)
    template = images.test_template if test and images.test_template is not None else images.template
    return paths_from_template(frame[competition.id].tolist(), template=template, root=Path(competition.root))
