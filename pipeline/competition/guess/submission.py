"""The submission and the test set, guessed from the CSVs beside the training table."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.competition.csvs import Dialect, read_cells, read_header
from pipeline.competition.guess.files import FileRule, guess_file_rule, image_files
from pipeline.competition.guess.labels import LabelGuess
from pipeline.competition.labels.list_cells import kind_of_cells
from pipeline.competition.paths import is_visible
from pipeline.errors import CompetitionError
from pipeline.events import ignore

_NO_COLUMN = "\0"  # a name that no column has
_ANSWER = re.compile(r"predict|label|target|tag|class|answer|attribute|categor", re.IGNORECASE)
_SEPARATORS = ("|", ",", ";", " ")


@dataclass(frozen=True)
class Table:
    """A CSV beside the training table: its path, columns and cells."""

    path: Path
    columns: tuple[str, ...]
    frame: pd.DataFrame


@dataclass(frozen=True)
class SubmissionGuess:
    """The guesses from the sample submission and a test table.

    Attributes:
        competition: keys of the section `competition`.
        columns: the sample's columns beside the id; none without a sample.
        keys: the sample's ids.
        cells: the cells of each of these columns.
        reasons: one sentence per guess.
    """

    competition: dict[str, Any]
    columns: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    cells: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    def section_for(self, labels: LabelGuess) -> tuple[dict[str, Any], str]:
        """The section `submission` for these labels, and the evidence."""
        if not self.columns:
            return {"format": "wide_probability"}, (
                "submission.format: there is no sample to follow; a column per label is written"
            )
        asked = [name for name in self.columns if name in labels.labels]
        if len(asked) > 1 or asked == list(self.columns):
            kind, shown = self._numbers(asked)
            further = [name for name in self.columns if name not in asked]
            return {
                "format": f"wide_{kind}",
                **self._constants(further),
            }, f"submission.format: a column per label; {shown}"
        endings = tuple(f"_{label}" for label in labels.labels)
        called = [name for name in self.columns if _ANSWER.search(name)]
        column = next(
            (name for name in self.columns if name == labels.section.get("column")), (*called, *self.columns)[0]
        )
        constants = self._constants([name for name in self.columns if name != column])
        if self.keys and all(key.endswith(endings) for key in self.keys):
            kind, shown = self._numbers([column])
            return {"format": f"long_{kind}", **constants}, f"submission.format: a row per label; {shown}"
        why = f"submission.format: one column '{column}', so it holds all labels of an image"
        return {"format": "delimited", "empty": "argmax", **self._way(column, labels), **constants}, why

    def has_other_cells(self, labels: LabelGuess) -> bool:
        """Whether the only column of cells holds long texts without any label, such as the boxes of a detection."""
        if len(self.columns) != 1 or self.columns[0] in labels.labels or "sample_id" in self.competition:
            return False
        cells = [cell for cell in self.cells[self.columns[0]] if cell.strip()]
        if kind_of_cells(cells) == "vector":
            return False
        words = {word.strip() for cell in cells for mark in _SEPARATORS for word in cell.split(mark)}
        return bool(cells) and min(len(cell.split()) for cell in cells) > 2 and not words & {*labels.labels}

    def only_header(self, id_column: str) -> tuple[dict[str, Any], dict[str, Any], str]:
        """Keys of `competition` and `submission` that take the sample's ids and header, not its cells; the evidence."""
        sample = self.competition["sample_submission"]
        why = (
            f"submission: the cells of {sample} hold no label, so it gives only ids and header: is it of another task?"
        )
        return (
            {"test": sample, **self.competition, "sample_submission": None},
            {"columns": [id_column, *self.columns]},
            why,
        )

    def _numbers(self, columns: Sequence[str]) -> tuple[str, str]:
        if {cell for name in columns for cell in self.cells[name]} <= {"0", "1", ""}:
            return "binary", "its cells are 0 or 1; if the scorer wants probabilities, set that"
        return "probability", "its cells are numbers"

    def _constants(self, names: Sequence[str]) -> dict[str, Any]:
        return {"constants": {name: self.cells[name][0] for name in names}} if names else {}

    def _way(self, column: str, labels: LabelGuess) -> dict[str, Any]:
        """The settings for several names in a cell of the sample; none if the training cells are written alike."""
        kind = kind_of_cells(self.cells[column])
        if kind != "joined":
            return {"cells": kind}
        trained = labels.section.get("separator", " ")
        held = [mark for mark in _SEPARATORS if any(mark in cell.strip() for cell in self.cells[column])]
        known = set(labels.labels)
        fits = [mark for mark in held if all(set(cell.split(mark)) <= known for cell in self.cells[column] if cell)]
        return {"separator": fits[0]} if fits and trained not in fits else {}


def read_tables(train: Path) -> list[Table]:
    """All readable CSVs in the folder of the training table, except that one, in the order of their names."""
    tables = []
    for path in sorted(train.absolute().parent.glob("*.csv")):
        if path == train.absolute() or not is_visible(path.name):
            continue
        try:
            header = read_header(path, id_column=_NO_COLUMN, key="the table", dialect=Dialect(), listen=ignore)
            frame = read_cells(path, id_column=header[0], key="the table", listen=ignore)
        except CompetitionError:
            continue
        tables.append(Table(path, header, frame))
    return tables


def find_sample(tables: Sequence[Table], train: Mapping[str, Sequence[str]]) -> Table | None:
    """The sample submission: called sample before submission, and not about the training rows."""
    trained = {cell for cells in train.values() for cell in cells}

    def rank(table: Table) -> tuple[bool, bool]:
        name = table.path.name.lower()
        return "sample" in name, "submi" in name

    named = [table for table in tables if any(rank(table))]
    named = [table for table in named if 2 * len({*table.frame[table.columns[0]]} & trained) < len(table.frame) + 1]
    return max(named, key=rank, default=None)


def guess_submission(
    sample: Table | None, tables: Sequence[Table], root: Path, id_column: str, rule: FileRule, long: Sequence[str]
) -> SubmissionGuess:
    """Guess the section on the test set and the submission.

    Args:
        sample: the sample submission.
        tables: the CSVs beside the training table.
        root: the competition's root; images are searched below it.
        id_column: the training table's.
        rule: from training ids to files.
        long: the labels that follow an id in the rows of a long table; none for other tables.
    """
    if sample is None:
        reason = "submission: no CSV has a name like sample; the header is made of the labels"
        test = [table for table in tables if "test" in table.path.name.lower() and id_column in table.columns]
        keys = {"test": test[0].path.relative_to(root).as_posix()} if test else {}
        return SubmissionGuess({"sample_submission": None, **keys}, reasons=(reason,))
    column = id_column if id_column in sample.columns else sample.columns[0]
    keys_ = tuple(sample.frame[column])
    others = tuple(name for name in sample.columns if name != column)
    found: dict[str, Any] = {"sample_submission": sample.path.relative_to(root).as_posix()}
    found |= {} if column == id_column else {"sample_id": column}
    reasons = [f"submission: {sample.path.name} asks for {len(keys_)} rows of {len(others)} cells"]
    ids = tuple(dict.fromkeys(_without_label(key, long) for key in keys_))
    test_keys, why = _test_images([table for table in tables if table is not sample], root, id_column, ids, rule)
    cells = {name: tuple(sample.frame[name]) for name in others}
    return SubmissionGuess({**found, **test_keys}, others, keys_, cells, (*reasons, *why))


def _without_label(key: str, labels: Sequence[str]) -> str:
    ends = [f"_{label}" for label in labels if key.endswith(f"_{label}")]
    return key.removesuffix(max(ends, key=len)) if ends else key


def _test_images(
    tables: Collection[Table], root: Path, id_column: str, keys: Sequence[str], rule: FileRule
) -> tuple[dict[str, Any], list[str]]:
    """The keys for the files that the sample's ids lead to, or for a test table with these ids."""
    by_column = "column" in rule.images
    found: dict[str, Any] = {}
    reasons = []
    for table in tables:
        fits = id_column in table.columns and {*table.frame[id_column]} == {*keys}
        if fits and (not by_column or rule.column in table.columns):
            found = {"test": table.path.relative_to(root).as_posix()}
            reasons = [f"test: {table.path.name} has the ids of the sample"]
            break
    if by_column:
        return found, reasons
    # Outside of the training images first: test images may have the same names.
    trained = {folder.removesuffix("/") for folder in _training_folders(rule)}
    files = [file for file in image_files(root, root) if str(file.parent) not in trained]
    test = guess_file_rule({id_column: list(keys)}, files, csv_folder="", root=root) if files else None
    if test is None or test.images == rule.images or "column" in test.images or test.channels != rule.channels:
        return found, reasons
    changed = {"test_template": test.images["template"]}
    if "folders" in test.images or "folders" in rule.images:
        changed |= {"test_folders": test.images.get("folders", ["."])}
    why = f"ids of the sample lead to a file by {test.images['template']}"
    reasons.append(f"test images: {round(test.share * len(keys))} of {len(keys)} {why}")
    return {**found, "images": {**rule.images, **changed}}, reasons


def _training_folders(rule: FileRule) -> list[str]:
    folder = rule.images["template"].rpartition("/")[0]
    return rule.images.get("folders") or [folder or "."]
