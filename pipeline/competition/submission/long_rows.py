"""The rows of a long submission: keys `<id><separator><label>`, split where a known label ends them."""

from __future__ import annotations

from pipeline.competition.labels import split_keys
from pipeline.competition.notes import tell_nobody
from pipeline.competition.sample import Sample
from pipeline.competition.submission.format import LONG, SubmissionFormat
from pipeline.errors import CompetitionError, SubmissionError


def split_rows(sample: Sample, form: SubmissionFormat) -> tuple[list[str], list[str]]:
    """The id and the label of each row of a long sample; raises SubmissionError where a row ends in no label."""
    try:
        return split_keys(sample.ids, form.labels, form.separator, path=sample.path, tell=tell_nobody)
    except CompetitionError as error:
        raise SubmissionError(
            error.problem,
            expected=error.expected,
            got=error.got,
            remedy="correct submission.separator, or give the sample submission of this competition",
        ) from None


def asked_images(sample: Sample, form: SubmissionFormat) -> tuple[str, ...]:
    """The ids of the images that the sample asks about, each once, in the sample's order.

    Raises:
        SubmissionError: a row of a long sample ends in no label.
    """
    if form.kind not in LONG:
        return sample.ids
    return tuple(dict.fromkeys(split_rows(sample, form)[0]))


def keys_for(ids: tuple[str, ...], form: SubmissionFormat) -> tuple[str, ...]:
    """The rows that ask for everything about `ids`, for a sample that does not list them."""
    if form.kind not in LONG:
        return ids
    return tuple(f"{id_}{form.separator}{label}" for id_ in ids for label in form.labels)
