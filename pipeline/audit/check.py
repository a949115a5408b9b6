"""The whole audit of a competition: it collects the mistakes of all tables and images and does not stop at one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import joblib
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from pipeline.audit.duplicates import duplicate_findings, duplicate_rows
from pipeline.audit.findings import Audit, Finding, findings_into, from_error, plural
from pipeline.audit.images import broken_images, odd_images, shifts
from pipeline.audit.labels import label_findings
from pipeline.audit.table import print_audit
from pipeline.competition.digit_scenes import make_digit_scenes
from pipeline.competition.folds import split_groups
from pipeline.competition.folds.deal import deal_folds
from pipeline.competition.paths import ImagePaths
from pipeline.competition.submission import check_sample, submission_form
from pipeline.competition.submission.sample import read_sample
from pipeline.competition.table import TrainTable, read_train
from pipeline.competition.test_set import TestTable, read_test_set
from pipeline.config import Config
from pipeline.errors import CompetitionError, PipelineError
from pipeline.events import ImageProgress, Listener
from pipeline.files import write_json
from pipeline.images.geometry import image_form
from pipeline.images.image_stats import ImageStats, few_bits, read_image_stats
from pipeline.run.folder import RunFolder
from pipeline.run.image_groups import group_table

_NO_ROWS = TestTable((), ())


def check(config: Config, run: RunFolder, *, console: Console, listen: Listener) -> None:
    """Audit the competition, print the findings and write them to `audit.json` of `run`.

    Raises:
        CompetitionError: the audit found errors.
        RunError: the folder of `run` was not made by the pipeline.
    """
    run.require_ours()
    audit = audit_competition(config, listen=listen)
    run.begin(fresh=False)
    write_json(run.audit, audit.to_json())
    print_audit(console, audit)
    if not audit.ready:
        raise CompetitionError(
            f"the check found {plural(len(audit.errors), 'error')}",
            remedy=f"correct what is listed above; {run.audit} lists all of it",
        )


def audit_competition(config: Config, *, listen: Listener) -> Audit:
    """The audit of all tables, labels and images of a competition. Mistakes are collected, not raised.

    Args:
        config: the complete configuration.
        listen: receives an ImageProgress for each image that was read.
    """
    if config.competition.builtin == "digit_scenes":
        make_digit_scenes(Path(config.competition.root))
    findings: list[Finding] = []
    try:
        table = read_train(config.competition, findings_into(findings, "train_table"))
    except PipelineError as error:
        return Audit((*findings, from_error("train_table", error)), {})
    test = _test_table(config, table, findings)
    stats = _read_stats("reading train images", table.paths, config, listen)
    test_stats = _read_stats("reading test images", test.paths, config, listen)
    for part, ids, part_stats, tolerated in (
        ("train", table.ids, stats, config.images.broken == "skip"),
        ("test", test.ids, test_stats, config.predict.broken == "fallback"),
    ):
        findings += broken_images(part, ids, part_stats, tolerated=tolerated)
        findings += odd_images(part, ids, part_stats)
    lost = few_bits([image.largest for image in (*stats, *test_stats)], config.images.window)
    findings += [] if lost is None else [Finding("warning", "few_bits", *lost)]
    complete, table, stats = table, *_readable(table, stats)
    table, folds = _make_folds(config, complete, table, stats, findings)
    found, label_figures = label_findings(table.positives, table.labels, folds)
    differences, shift_figures = shifts(stats, test_stats)
    pairs = duplicate_rows([*stats, *test_stats], [*table.paths, *test.paths], turned=True)
    findings += found + differences
    findings += duplicate_findings(
        pairs,
        [*table.ids, *test.ids],
        train_count=len(table.ids),
        targets=table.positives,
        folds=folds,
        groups=config.competition.groups or (),
    )
    findings += [] if config.competition.groups is not None else _series(table.ids)
    figures = {"train_rows": len(complete.ids), "test_rows": len(test.ids), "labels": label_figures}
    return Audit(tuple(findings), {**figures, "shifts": shift_figures})


def _read_stats(doing: str, paths: Sequence[ImagePaths], config: Config, listen: Listener) -> list[ImageStats]:
    return read_image_stats(
        paths,
        image_form(config.images).reading,
        threads=joblib.cpu_count(),
        progress=lambda done: listen(ImageProgress(doing, done, len(paths))),
    )


def _test_table(config: Config, table: TrainTable, findings: list[Finding]) -> TestTable:
    """The test rows of the sample, or without a sample those of the test CSV.

    A missing or wrong file is added to `findings`, and the table is then empty.
    """
    competition = config.competition
    name = competition.sample_submission
    if name is not None and not (Path(competition.root) / name).exists():
        remedy = "it is needed when a submission is made: set competition.sample_submission"
        findings.append(Finding("warning", "sample_submission", f"there is no sample submission ({name})", remedy))
        competition = competition.model_copy(update={"sample_submission": None})
    if competition.sample_submission is None and competition.test is None:
        note = "there is neither a sample submission nor a test CSV: test images are not checked"
        findings.append(Finding("note", "sample_submission", note))
        return _NO_ROWS
    try:
        form = submission_form(config.submission, competition, table.labels)
        if competition.sample_submission is not None:
            check_sample(read_sample(competition), form)
    except PipelineError as error:
        findings.append(from_error("sample_submission", error))
        return _NO_ROWS
    listen = findings_into(findings, "test_table")
    try:
        asked = read_test_set(competition, config.submission, form, images=None, train_ids=table.ids, listen=listen)
    except PipelineError as error:
        findings.append(from_error("test_table", error))
        return _NO_ROWS
    return asked.table


def _readable(table: TrainTable, stats: Sequence[ImageStats]) -> tuple[TrainTable, list[ImageStats]]:
    """The rows whose images can be read, and their stats."""
    rows = [row for row, image in enumerate(stats) if image.problem is None]
    return table.take(rows), [stats[row] for row in rows]


def _make_folds(
    config: Config, complete: TrainTable, table: TrainTable, stats: Sequence[ImageStats], findings: list[Finding]
) -> tuple[TrainTable, NDArray[np.int64] | None]:
    """The table with its groups, and the folds (N,) of its rows, or None if they cannot be made."""
    try:
        table = group_table(config.competition, table, stats, findings_into(findings, "groups"))
        folds = deal_folds(config, complete, table, whole_groups=False)
    except (PipelineError, ValueError) as error:
        if not isinstance(error, PipelineError):
            error = PipelineError(str(error), remedy="check competition.groups")
        findings.append(from_error("folds", error))
        return table, None
    findings += _split_groups(config.folds.file, table, folds)
    return table, folds


def _split_groups(file: str | None, table: TrainTable, folds: NDArray[np.int64]) -> list[Finding]:
    """An error that lists each group whose rows the fold file puts into several folds."""
    split = tuple([group, found] for group, found in split_groups(table.groups, folds).items())
    if not split:
        return []
    remedy = "put all rows of a group into one fold, or drop folds.file and let folds be made"
    return [Finding("error", "folds_split_groups", f"{file}: {len(split)} groups lie in several folds", remedy, split)]


def _series(ids: Sequence[str]) -> list[Finding]:
    """A note if ids such as `clip7_003` form several series of at least two rows each."""
    found = [re.match(r"^(.*[^\W_]+)[_\-.](?:\D{0,4})\d+(?:\.\w{3,4})?$", id_) for id_ in ids]
    names = {match.group(1) for match in found if match is not None}
    matched = sum(match is not None for match in found)
    if not names or matched < 0.9 * len(ids) or not 5 <= len(names) <= matched / 2:
        return []
    return [
        Finding(
            "note",
            "ids_in_series",
            f"the ids look like {len(names)} series of about {matched / len(names):.0f} rows, and there are no groups",
            "if a series is one patient, clip or place, set competition.groups: {regex: '^(.+)[_.-]'}",
            tuple(sorted(names)[:20]),
        )
    ]
