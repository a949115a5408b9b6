"""Writing a submission: it gets its name only after it was read back and found valid."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.competition.sample import Sample
from pipeline.competition.submission.format import SubmissionFormat
from pipeline.competition.submission.validate import Findings, validate_submission
from pipeline.errors import SubmissionError, listing
from pipeline.files import write_atomically


def write_submission(path: Path, frame: pd.DataFrame, sample: Sample, form: SubmissionFormat) -> tuple[str, ...]:
    """Write `frame`, read the file back as a scorer would, validate it, and only then give it its name.

    Returns:
        What a person should know of the valid file, one sentence each.

    Raises:
        SubmissionError: the written file is not valid; nothing stands under `path` then that was not there.
    """
    found: list[Findings] = []

    def write_and_validate(temporary: Path) -> None:
        temporary.write_bytes(frame.to_csv(index=False, lineterminator="\n").encode("utf-8"))
        found.append(validate_submission(temporary, sample, form, name=path.name))
        if found[0].errors:
            raise SubmissionError(
                f"{path} would be rejected: {listing(found[0].errors)}",
                remedy="correct the sample or the labels that this names; otherwise please report it as our fault",
            )

    write_atomically(path, write_and_validate)
    return found[0].warnings
