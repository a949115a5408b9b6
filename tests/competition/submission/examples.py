"""One small valid submission of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.competition.submission import SubmissionFormat, SubmissionKind, build_submission, write_submission
from pipeline.competition.submission.sample import Sample
from pipeline.events import ignore

LABELS = ("ETT - Abnormal", "b")
IDS = ["01", "02", "3.1"]  # the predictions' order is not the sample's
PROBABILITIES = np.array([[0.25, 0.5], [1.0, 0.0], [1e-12, 0.125]])
DECISIONS = np.array([[0, 1], [1, 0], [0, 0]], dtype=np.uint8)
ASKED = ("02", "01", "3.1")
WIDE = Sample(Path("sample.csv"), ("id", "b", "ETT - Abnormal"), ASKED)
NAMES = Sample(Path("sample.csv"), ("Id", "labels"), ASKED, "Id")
LONG = Sample(
    Path("sample.csv"),
    ("row_id", "fractured"),
    ("02_ETT - Abnormal", "02_b", "01_b", "01_ETT - Abnormal", "3.1_ETT - Abnormal", "3.1_b"),
    "row_id",
)
FORMS: dict[SubmissionKind, tuple[Sample, SubmissionFormat]] = {
    "wide_binary": (WIDE, SubmissionFormat("wide_binary", LABELS)),
    "wide_probability": (WIDE, SubmissionFormat("wide_probability", LABELS)),
    "delimited": (NAMES, SubmissionFormat("delimited", LABELS, "|")),
    "ranked": (NAMES, SubmissionFormat("ranked", LABELS, "|", k=2)),
    "long_binary": (LONG, SubmissionFormat("long_binary", LABELS, "_")),
    "long_probability": (LONG, SubmissionFormat("long_probability", LABELS, "_")),
}


def write_example(folder: Path, sample: Sample, form: SubmissionFormat) -> Path:
    """The example's predictions as a submission of this form."""
    frame = build_submission(sample, form, ids=IDS, probabilities=PROBABILITIES, decisions=DECISIONS)
    path = folder / "submission.csv"
    write_submission(path, frame, sample, form, ignore)
    return path
