"""Any file as a submission of a competition, wherever it came from."""

from __future__ import annotations

from pathlib import Path

from pipeline.competition.sample import Sample, read_sample
from pipeline.competition.submission import SubmissionFormat, check_sample, submission_form, validate_submission
from pipeline.competition.table import read_train
from pipeline.competition.test_set import read_test_set
from pipeline.config import Config
from pipeline.errors import SubmissionError


def require_valid(config: Config, file: Path) -> tuple[str, ...]:
    """What a person should know of the valid submission `file`, one sentence each.

    Raises:
        SubmissionError: a scorer would reject it, for the reasons named.
        CompetitionError, ConfigError: the competition's own files cannot be read.
    """
    table = read_train(config.competition)
    form = submission_form(config.submission, config.competition, table.labels)
    sample = _asked(config, form, table.ids)
    check_sample(sample, form)
    found = validate_submission(file, sample, form)
    if found.errors:
        problems = [*found.errors, *(f"beside that: {warning}" for warning in found.warnings)]
        raise SubmissionError(
            f"{file} would be rejected:\n" + "\n".join(f"  - {problem}" for problem in problems),
            expected=f"{len(sample.ids)} rows as in {sample.path}, of the form {form.kind}",
            remedy="correct the file, or competition.sample_submission and submission.format if these are wrong",
        )
    return found.warnings


def _asked(config: Config, form: SubmissionFormat, train_ids: tuple[str, ...]) -> Sample:
    if config.competition.sample_submission is not None and config.submission.ids != "images":
        return read_sample(config.competition)
    return read_test_set(config.competition, config.submission, form, images=None, train_ids=train_ids).sample
