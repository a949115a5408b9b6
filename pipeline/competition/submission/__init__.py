"""Submissions: written in the sample's rows and columns, and validated as a scorer would read them."""

from pipeline.competition.submission.format import (
    EmptyRule,
    SubmissionFormat,
    SubmissionKind,
    asked_images,
    keys_for,
    resolve_empty,
    submission_form,
)
from pipeline.competition.submission.sample_check import check_sample
from pipeline.competition.submission.validate import Findings, validate_submission
from pipeline.competition.submission.write import build_submission, write_submission

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
