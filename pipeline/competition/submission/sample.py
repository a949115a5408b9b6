"""The sample submission: the header and ids that a submission must have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unicodedata import is_normalized, normalize

from pipeline.competition.csvs import dialect_of, read_cells, read_header, read_table, read_text
from pipeline.config import CompetitionConfig
from pipeline.errors import CompetitionError, listing
from pipeline.events import ignore

_BLANK_AT_AN_END = re.compile(r"""[,;\t"]\s|\s[,;\t"]|\s$""")  # of a column's name


@dataclass(frozen=True)
class Sample:
    """The header and ids that a submission must have.

    Attributes:
        path: the file they were read from, for messages.
        columns: the header.
        ids: the cells of the id column, in order: ids of images, or `<id>_<label>` in a long submission.
        id_column: the one of `columns` that holds them.
        cells: of each other column the distinct cells that are not blank, each with the id of its first row.
        written: the file's own spelling of columns and ids that are not in the Unicode form NFC.
    """

    path: Path
    columns: tuple[str, ...]
    ids: tuple[str, ...]
    id_column: str = "id"
    cells: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)

    def as_written(self) -> Sample:
        """The sample with columns and ids as its file spells them, which a scorer compares byte by byte."""
        columns, ids = (tuple(self.written.get(text, text) for text in texts) for texts in (self.columns, self.ids))
        return replace(self, columns=columns, ids=ids, id_column=self.written.get(self.id_column, self.id_column))


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
    ids = frame[id_column].tolist()
    cells = {
        name: {
            cell: id_ for cell, id_ in zip(reversed(frame[name].tolist()), reversed(ids), strict=True) if cell.strip()
        }
        for name in frame.columns
        if name != id_column
    }
    written = _own_spelling(path, competition)
    return Sample(path, tuple(frame.columns), tuple(ids), id_column, cells, written)


def _own_spelling(path: Path, competition: CompetitionConfig) -> dict[str, str]:
    """{text in NFC, without blanks around it: the file's own spelling} of columns and cells that differ."""
    text = read_text(path, key="", encoding=competition.encoding, listen=ignore, exact=True)
    first = text.lstrip().partition("\n")[0].rstrip("\r")
    if is_normalized("NFC", text) and not _BLANK_AT_AN_END.search(first):
        return {}
    dialect = replace(dialect_of(competition), exact=True)
    header = read_header(path, id_column="", key="competition.sample_submission", dialect=dialect, listen=ignore)
    found = {normalize("NFC", name).strip(): name for name in header}
    if not is_normalized("NFC", text):
        frame = read_cells(path, id_column=header[0], key="competition.sample_submission", dialect=dialect)
        cells = {cell.strip() for name in header for cell in frame[name]}
        found |= {normalize("NFC", cell): cell for cell in cells}
    return {text: own for text, own in found.items() if text != own}


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
        remedy="use the sample submission that belongs to this test set, or set competition.test: null, which needs "
        "competition.images.template",
    )
