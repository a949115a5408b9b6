"""The form of a submission: the kind of its cells, how it spells labels, and whether a sample has room for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pipeline.competition.labels.delimited import label_spelling
from pipeline.competition.labels.rows import Source
from pipeline.competition.notes import tell_nobody
from pipeline.competition.sample import Sample
from pipeline.config import CompetitionConfig, DelimitedLabels, SubmissionConfig
from pipeline.errors import ConfigError, SubmissionError, listing

SubmissionKind = Literal["wide_binary", "wide_probability", "delimited", "ranked", "long_binary", "long_probability"]
EmptyRule = Literal["none", "argmax"] | int

ONE_CELL: tuple[SubmissionKind, ...] = ("delimited", "ranked")
LONG: tuple[SubmissionKind, ...] = ("long_binary", "long_probability")
BINARY: tuple[SubmissionKind, ...] = ("wide_binary", "long_binary")


@dataclass(frozen=True)
class SubmissionFormat:
    """What a scorer expects beside the sample.

    Attributes:
        kind: `wide_binary` and `wide_probability` have a column per label, `long_…` a row per `<id>_<label>`, with
            0 or 1 or with a number in [0, 1]; `delimited` and `ranked` hold names in one cell.
        labels: K labels in the order of the predictions' columns, spelled as the file shall hold them.
        separator: joins the names of a cell, or an id with its label.
        empty_token: what a delimited cell holds for a row without any label.
        digits: decimals of a probability; None for nine significant digits.
        k: how many names a ranked cell holds at most.
    """

    kind: SubmissionKind
    labels: tuple[str, ...]
    separator: str = " "
    empty_token: str = ""
    digits: int | None = None
    k: int = 1

    @cached_property
    def label_set(self) -> frozenset[str]:
        """The labels, for looking one up."""
        return frozenset(self.labels)


def submission_form(
    submission: SubmissionConfig, competition: CompetitionConfig, labels: tuple[str, ...]
) -> SubmissionFormat:
    """The form of the submission.

    Raises:
        ConfigError: as `resolve_empty`, and for labels that hold the separator that shall join them.
        CompetitionError: the second CSV that gives labels their names cannot be read.
    """
    _, token = resolve_empty(submission.empty, labels, submission.format)
    separator = submission.separator or _usual_separator(submission.format, competition)
    spelled = _spelled(labels, submission, competition)
    form = SubmissionFormat(
        submission.format, spelled, separator, token, submission.digits, min(submission.k or 1, len(labels))
    )
    torn = [name for name in form.labels if separator in name or name != name.strip()]
    if form.kind in ONE_CELL and torn:
        raise ConfigError(
            f"the labels {listing(map(repr, torn))} cannot stand in a {form.kind} submission",
            expected=f"names without the separator {separator!r}",
            remedy="set submission.separator to what this competition's sample has between two names",
        )
    return form


def resolve_empty(empty: str, labels: Sequence[str], kind: SubmissionKind) -> tuple[EmptyRule, str]:
    """What `submission.empty` means: the rule for decisions, and the token for an empty delimited cell.

    A label's name predicts that label for rows that have none; another word is a token that only a
    delimited submission can hold.

    Raises:
        ConfigError: a word that is no label in any other submission.
    """
    if empty == "none":
        return "none", ""
    if empty == "argmax":
        return "argmax", ""
    if empty in labels:
        return list(labels).index(empty), ""
    if kind != "delimited":
        raise ConfigError(
            f"submission.empty: '{empty}' cannot stand in a {kind} submission",
            expected=f"none, argmax, or a label out of {listing(labels)}",
            remedy="choose one of these, or set submission.format: delimited",
        )
    return "none", empty


def check_sample(sample: Sample, form: SubmissionFormat) -> None:
    """Raise SubmissionError where the sample's header cannot hold a submission of this form."""
    columns = [name for name in sample.columns if name != sample.id_column]
    if form.kind.startswith("wide"):
        if set(columns) != set(form.labels):
            raise SubmissionError(
                f"{sample.path}: the columns are not the labels",
                expected=f"a column for each of {listing(form.labels, 12)}",
                got=f"columns {listing(columns, 12)}",
                remedy="give the sample submission of this competition, or set submission.format: delimited",
            )
    elif len(columns) != 1:
        raise SubmissionError(
            f"{sample.path}: a {form.kind} submission has one column beside '{sample.id_column}'",
            got=f"columns {listing(columns, 12)}",
            remedy="set submission.format to wide_binary or wide_probability, or give the right sample",
        )


def _spelled(labels: tuple[str, ...], submission: SubmissionConfig, competition: CompetitionConfig) -> tuple[str, ...]:
    """The labels as a cell holds them: by default as in the training table, where a second CSV gave them names."""
    encoding = competition.labels
    in_cells = submission.format in (*ONE_CELL, *LONG)
    if not (
        isinstance(encoding, DelimitedLabels) and encoding.names and in_cells and submission.spelling == "as_trained"
    ):
        return labels
    path = Path(competition.root) / encoding.names.file
    keys = label_spelling(encoding, Source(competition, path, "competition.labels.names.file", None, (), tell_nobody))
    return tuple(keys[name] for name in labels)


def _usual_separator(kind: SubmissionKind, competition: CompetitionConfig) -> str:
    """That of the training table, where it joins the same things."""
    same = "long" if kind in LONG else "delimited"
    if competition.labels.format == same:
        return str(getattr(competition.labels, "separator", " "))
    return "_" if kind in LONG else " "
