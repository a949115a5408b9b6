"""Validate any file as a submission of a competition."""

from __future__ import annotations

from pathlib import Path

from pipeline.competition.submission import SubmissionFormat, check_sample, submission_form, validate_submission
from pipeline.competition.submission.sample import Sample, read_sample
from pipeline.competition.table import read_train
from pipeline.competition.test_set import read_test_set
from pipeline.config import Config
from pipeline.errors import SubmissionError
from pipeline.events import Listener, Note, ignore


def require_valid(config: Config, file: Path, listen: Listener, *, images: Path | None = None) -> None:
    """Raise an error unless `file` is a valid submission; `listen` gets a note on each warning.

    With a folder `images` of a hidden test set, the rows are those of its files, as in `read_test_set`.

    Raises:
        SubmissionError: a scorer would reject the file; the reasons are named.
        CompetitionError, ConfigError: the competition's own files cannot be read.
    """
    table = read_train(config.competition, ignore)
    form = submission_form(config.submission, config.competition, table.labels)
    sample = _asked(config, form, table.ids, images)
    check_sample(sample, form)
    found = validate_submission(file, sample, form)
    if found.errors:
        problems = [*found.errors, *(f"beside that: {warning}" for warning in found.warnings)]
        raise SubmissionError(
            f"{file} would be rejected:\n" + "\n".join(f"  - {problem}" for problem in problems),
            expected=f"{len(sample.ids)} rows as in {sample.path}, of the form {form.kind}",
            remedy="correct the file, or competition.sample_submission and submission.format if these are wrong",
        )
    for warning in found.warnings:
        listen(Note(warning))


def _asked(config: Config, form: SubmissionFormat, train_ids: tuple[str, ...], images: Path | None) -> Sample:
    competition, submission = config.competition, config.submission
    if images is None and competition.sample_submission is not None and submission.ids != "images":
        return read_sample(competition)
    return read_test_set(competition, submission, form, images=images, train_ids=train_ids, listen=ignore).sample
