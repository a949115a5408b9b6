"""The submission and the test set, guessed from the CSVs beside the training table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.competition.csvs import Dialect, read_cells, read_header
from pipeline.competition.guess.files import FileRule, guess_file_rule, image_files
from pipeline.competition.guess.labels import LabelGuess
from pipeline.events import ignore

_NO_COLUMN = "\0"  # a name that no column has


@dataclass(frozen=True)
class SubmissionGuess:
    """The guesses from the sample submission and a test table.

    Attributes:
        competition: keys of the section `competition`.
        columns: the sample's columns beside the id; none without a sample.
        keys: the sample's ids.
        cells: the cells of its other columns.
        reasons: one sentence per guess.
    """

    competition: dict[str, Any]
    columns: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    cells: frozenset[str] = frozenset()
    reasons: tuple[str, ...] = ()

    def form_for(self, labels: LabelGuess) -> tuple[str, str]:
        """The key `submission.format` for these labels, and the evidence."""
        if not self.columns:
            return "wide_probability", "submission.format: there is no sample to follow; a column per label is written"
        numbers = self.cells <= {"0", "1"}
        shown = (
            "its cells are 0 or 1; if the scorer wants probabilities, set that" if numbers else "its cells are numbers"
        )
        if set(self.columns) == set(labels.labels) and len(self.columns) > 1:
            return ("wide_binary" if numbers else "wide_probability"), f"submission.format: a column per label; {shown}"
        endings = tuple(f"_{label}" for label in labels.labels)
        if self.keys and all(key.endswith(endings) for key in self.keys):
            return ("long_binary" if numbers else "long_probability"), f"submission.format: a row per label; {shown}"
        return "delimited", "submission.format: one column, so it holds the names of the labels"


def guess_submission(folder: Path, root: Path, id_column: str, rule: FileRule, long: Sequence[str]) -> SubmissionGuess:
    """Guess the section on the test set and the submission from the CSVs in `folder`.

    Args:
        folder: the folder of the training table.
        root: the competition's root; images are searched below it.
        id_column: the training table's.
        rule: from training ids to files.
        long: the labels that follow an id in the rows of a long table; none for other tables.
    """
    samples = sorted(path for path in folder.glob("*.csv") if re.search(r"sample|submi", path.name, re.IGNORECASE))
    if not samples:
        reason = "submission: no CSV has a name like sample; the header is made of the labels"
        return SubmissionGuess({"sample_submission": None}, reasons=(reason,))
    path = samples[0]
    header, frame = _read(path)
    column = id_column if id_column in header else header[0]
    keys = tuple(frame[column])
    others = tuple(name for name in header if name != column)
    found: dict[str, Any] = {"sample_submission": path.relative_to(root).as_posix()}
    found |= {} if column == id_column else {"sample_id": column}
    reasons = [f"submission: {path.name} asks for {len(keys)} rows of {len(others)} cells"]
    ids = tuple(dict.fromkeys(_without_label(key, long) for key in keys))
    test, why = _test_images(folder, root, id_column, ids, rule)
    cells = frozenset(cell for name in others for cell in frame[name])
    return SubmissionGuess({**found, **test}, others, keys, cells, (*reasons, *why))


def _read(path: Path) -> tuple[tuple[str, ...], pd.DataFrame]:
    header = read_header(path, id_column=_NO_COLUMN, key="the sample", dialect=Dialect(), listen=ignore)
    return header, read_cells(path, id_column=header[0], key="the sample", listen=ignore)


def _without_label(key: str, labels: Sequence[str]) -> str:
    ends = [f"_{label}" for label in labels if key.endswith(f"_{label}")]
    return key.removesuffix(max(ends, key=len)) if ends else key


def _test_images(
    folder: Path, root: Path, id_column: str, keys: Sequence[str], rule: FileRule
) -> tuple[dict[str, Any], list[str]]:
    """The keys for a test table with the sample's ids, or for the files that these ids lead to."""
    for path in sorted(folder.glob("*.csv")):
        if "test" not in path.name.lower():
            continue
        header, frame = _read(path)
        if id_column in header and set(frame[id_column]) == set(keys):
            return {"test": path.relative_to(root).as_posix()}, [f"test: {path.name} has the ids of the sample"]
    if "column" in rule.images:
        return {}, []
    files = [file for file in image_files(root, root) if re.search("test|valid", str(file), re.IGNORECASE)]
    found = guess_file_rule({id_column: list(keys)}, files, csv_folder="") if files else None
    if found is None or found.images == rule.images or "column" in found.images:
        return {}, []
    keys_of = {"test_template": found.images["template"]}
    if "folders" in found.images or "folders" in rule.images:
        keys_of |= {"test_folders": found.images.get("folders", ["."])}
    return {"images": {**rule.images, **keys_of}}, [
        f"test images: {round(found.share * len(keys))} of {len(keys)} "
        f"ids of the sample lead to a file by {found.images['template']}"
    ]
