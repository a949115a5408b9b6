"""Submissions: what a scorer wants to read, written in exactly the sample's rows, read back and validated."""

from pipeline.competition.submission.encode import build_submission
from pipeline.competition.submission.format import (
    EmptyRule,
    SubmissionFormat,
    SubmissionKind,
    check_sample,
    resolve_empty,
    submission_form,
)
from pipeline.competition.submission.long_rows import asked_images, keys_for
from pipeline.competition.submission.validate import Findings, validate_submission
from pipeline.competition.submission.write import write_submission

__all__ = [
    "EmptyRule",
    "Findings",
    "SubmissionFormat",
    "SubmissionKind",
    "asked_images",
    "build_submission",
    "check_sample",
    "keys_for",
    "resolve_empty",
    "submission_form",
    "validate_submission",
    "write_submission",
]
