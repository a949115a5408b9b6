"""The format of a submission: the kind of its cells, the spelling of labels, the keys of long rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from pipeline.competition.labels import split_keys
from pipeline.competition.labels.delimited import label_spelling
from pipeline.competition.labels.rows import Source
from pipeline.competition.submission.layout import CellsKind, Layout, layout_like
from pipeline.competition.submission.sample import Sample, read_sample
from pipeline.config import CompetitionConfig, DelimitedLabels, SubmissionConfig
from pipeline.errors import CompetitionError, ConfigError, SubmissionError, listing
from pipeline.events import ignore

SubmissionKind = Literal["wide_binary", "wide_probability", "delimited", "ranked", "long_binary", "long_probability"]
EmptyRule = Literal["none", "argmax"] | int

ONE_CELL: tuple[SubmissionKind, ...] = ("delimited", "ranked")
LONG: tuple[SubmissionKind, ...] = ("long_binary", "long_probability")
BINARY: tuple[SubmissionKind, ...] = ("wide_binary", "long_binary")


@dataclass(frozen=True)
class SubmissionFormat:
    """The kind of a submission, and how its cells are written.

    Attributes:
        kind: `wide_binary` and `wide_probability` have a column per label, `long_…` a row per `<id>_<label>`, with
            0 or 1 or with a number in [0, 1]; `delimited` and `ranked` hold names in one cell.
        labels: K labels in the order of the predictions' columns, spelled as in the file.
        separator: joins the names of a cell, or an id with its label.
        empty_token: the delimited cell of a row without any label.
        digits: decimals of a probability; None for nine significant digits.
        k: the most names in a ranked cell.
        cells: how a cell holds several names: joined, as a list, or as a vector of 0 and 1 for all labels.
        written: the punctuation of a list or vector.
        constants: the cells of columns that are no answer.
    """

    kind: SubmissionKind
    labels: tuple[str, ...]
    separator: str = " "
    empty_token: str = ""
    digits: int | None = None
    k: int = 1
    cells: CellsKind = "joined"
    written: Layout | None = None
    constants: Mapping[str, str] = field(default_factory=dict)

    @property
    def layout(self) -> Layout:
        """The punctuation of a cell with several names."""
        return self.written or Layout(joint=self.separator)

    @cached_property
    def label_set(self) -> frozenset[str]:
        """The labels as a set, for quick look-up."""
        return frozenset(self.labels)


def submission_form(
    submission: SubmissionConfig, competition: CompetitionConfig, labels: tuple[str, ...]
) -> SubmissionFormat:
    """The format that the config asks for.

    Raises:
        ConfigError: as `resolve_empty`, or a label holds the separator.
        CompetitionError: the second CSV that gives labels their names cannot be read.
    """
    _, token = resolve_empty(submission.empty, labels, submission.format)
    separator = submission.separator or _usual_separator(submission.format, competition)
    spelled = _spelled(labels, submission, competition)
    written = None
    if submission.cells != "joined":
        written = layout_like(_sample_cells(competition), submission.cells, spelled)
    form = SubmissionFormat(
        submission.format,
        spelled,
        separator,
        token,
        submission.digits,
        min(submission.k or 1, len(labels)),
        submission.cells,
        written,
        submission.constants,
    )
    torn = [
        name for name in form.labels if form.layout.split(form.layout.join([name])) != [name] or name != name.strip()
    ]
    if form.kind in ONE_CELL and form.cells != "vector" and torn:
        raise ConfigError(
            f"the labels {listing(map(repr, torn))} cannot be in a {form.kind} submission",
            expected=f"names without the separator {separator!r}",
            remedy="set submission.separator to the separator in this competition's sample",
        )
    return form


def resolve_empty(empty: str, labels: Sequence[str], kind: SubmissionKind) -> tuple[EmptyRule, str]:
    """The two meanings of `submission.empty`: the rule for decisions, and the token of an empty delimited cell.

    The name of a label predicts that label for rows without any. Any other word is a token, which only a delimited
    submission can hold.

    Raises:
        ConfigError: a word that is no label, in any other submission.
    """
    if empty == "none":
        return "none", ""
    if empty == "argmax":
        return "argmax", ""
    if empty in labels:
        return list(labels).index(empty), ""
    if kind != "delimited":
        raise ConfigError(
            f"submission.empty: '{empty}' cannot be in a {kind} submission",
            expected=f"none, argmax, or a label out of {listing(labels)}",
            remedy="choose one of these, or set submission.format: delimited",
        )
    return "none", empty


def split_rows(sample: Sample, form: SubmissionFormat) -> tuple[list[str], list[str]]:
    """The id and the label of each row of a long sample. Raises SubmissionError if a row ends in no label."""
    try:
        return split_keys(sample.ids, form.labels, form.separator, path=sample.path, listen=ignore)
    except CompetitionError as error:
        raise SubmissionError(
            error.problem,
            expected=error.expected,
            got=error.got,
            remedy="correct submission.separator, or give the sample submission of this competition",
        ) from None


def asked_images(sample: Sample, form: SubmissionFormat) -> tuple[str, ...]:
    """The ids of the sample's images, each once, in the sample's order. Raises SubmissionError as `split_rows`."""
    if form.kind not in LONG:
        return sample.ids
    return tuple(dict.fromkeys(split_rows(sample, form)[0]))


def keys_for(ids: tuple[str, ...], form: SubmissionFormat) -> tuple[str, ...]:
    """The id cells of a submission about the images `ids`: `<id><separator><label>` in a long one."""
    if form.kind not in LONG:
        return ids
    return tuple(f"{id_}{form.separator}{label}" for id_ in ids for label in form.labels)


def _spelled(labels: tuple[str, ...], submission: SubmissionConfig, competition: CompetitionConfig) -> tuple[str, ...]:
    """The labels as a cell holds them: the keys of the training cells, if a second CSV gives these keys names."""
    encoding = competition.labels
    in_cells = submission.format in (*ONE_CELL, *LONG)
    if not (
        isinstance(encoding, DelimitedLabels) and encoding.names and in_cells and submission.spelling == "as_trained"
    ):
        return labels
    path = Path(competition.root) / encoding.names.file
    keys = label_spelling(encoding, Source(competition, path, "competition.labels.names.file", None, (), ignore))
    return tuple(keys[name] for name in labels)


def _sample_cells(competition: CompetitionConfig) -> list[str]:
    """The cells of the sample submission beside the ids; none if there is no such file yet."""
    if competition.sample_submission is None or not (Path(competition.root) / competition.sample_submission).exists():
        return []
    return [cell for cells in read_sample(competition).cells.values() for cell in cells]


def _usual_separator(kind: SubmissionKind, competition: CompetitionConfig) -> str:
    """The separator of the training table, if it joins the same things."""
    same = "long" if kind in LONG else "delimited"
    if competition.labels.format == same:
        return str(getattr(competition.labels, "separator", " "))
    return "_" if kind in LONG else " "
