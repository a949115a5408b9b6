"""The ledger of submissions and their public scores: `ledger/ledger.jsonl` beside `runs/`, with copies of the files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from pydantic import StrictBool, StrictFloat, StrictInt, StrictStr, TypeAdapter, ValidationError

from pipeline.errors import RunError, SubmissionError
from pipeline.files import parse_json, read_predictions, read_text, write_atomically, write_json_lines
from pipeline.metrics.posterior import Submissions
from pipeline.metrics.targets import Floats
from pipeline.run.folder import RunFolder
from pipeline.run.records import Scores, SubmissionRecord

LEDGER = Path("ledger/ledger.jsonl")
USUAL_SHARE = 0.3  # of the test rows that are public, where it is not known
_WORDS = r"[\s,;|\[\]'\"]+"
_LOCK_SECONDS = 10
_WIDTH = 2 * 1.96  # of a 95 % interval, in standard errors


@dataclass(frozen=True)
class Entry:
    """A submission; what is not known is None.

    Attributes:
        file: its path; a copy is beside the ledger.
        sha256: of the file.
        added: date and time in UTC.
        note: any text.
        public: the public score, on the share `public_share` of the test rows.
        runs: that made it; none for a file of another tool.
        interval: 95 %, of the cross-fitted score of the first run.
        rows: the number of cross-validated rows.
        forecast: of the score on all test rows, and its 95 % interval.
    """

    file: StrictStr
    sha256: StrictStr
    added: StrictStr
    note: StrictStr = ""
    public: StrictFloat | None = None
    public_share: StrictFloat | None = None
    runs: tuple[StrictStr, ...] = ()
    metric: StrictStr | None = None
    greater_is_better: StrictBool = True
    cross_fitted: StrictFloat | None = None
    interval: tuple[StrictFloat, StrictFloat] | None = None
    rows: StrictInt = 0
    test_rows: StrictInt = 0
    forecast: tuple[StrictFloat, StrictFloat, StrictFloat] | None = None

    @property
    def copy(self) -> Path:
        """The path of the copy."""
        return LEDGER.with_name(self.sha256[:12] + Path(self.file).suffix)


def add(path: Path, *, public: float | None, public_share: float | None, note: str | None) -> None:
    """Append a submission to the ledger; where it is there already, the new line counts, and keeps what is None.

    Args:
        path: a run with a submission, or the CSV of a submission.
        public: the public score.
        public_share: the share of the test rows that it is computed on.
        note: any text.

    Raises:
        PipelineError: there is no submission, a number is impossible, the ledger is in use or about another metric, or
            the first submission has no cross-fitted score.
    """
    if not 0 < (0.5 if public_share is None else public_share) < 1 or not math.isfinite(public or 0.0):
        raise SubmissionError(
            "--public or --public-share is impossible",
            expected="a finite score, and a share above 0 and below 1",
            got=f"{public} and {public_share}",
            remedy="write --public-share 0.3 for 30 % of the test rows",
        )
    run = RunFolder.at(path)
    file = run.submission if run.path.is_dir() else path
    if not file.is_file():
        raise SubmissionError(
            f"{file} is no file",
            expected="a run with a submission, or the file of a submission",
            remedy=f"correct the path; for a run: python make_submission.py {path}",
        )
    _table(file)
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    LEDGER.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(LEDGER.with_suffix(".lock"), timeout=_LOCK_SECONDS).acquire()
    except Timeout:
        raise RunError(f"{LEDGER} is in use by another command", remedy="wait for it or stop it") from None
    with lock:  # of two commands at once, the second reads what the first wrote
        lines = _read_lines()
        entry = next((each for each in lines[::-1] if each.sha256 == digest), Entry(str(file), digest, ""))
        given: dict[str, Any] = {"note": note, "public": public, "public_share": public_share}
        given = {key: value for key, value in given.items() if value is not None}
        entry = replace(entry, added=datetime.now(UTC).isoformat(timespec="seconds"), **given)
        if file != path:
            entry = replace(_with_scores(entry, run), file=str(file))
        _with_interval([*lines, entry])
        others = {each.metric for each in lines} - {None}
        if entry.metric and others - {entry.metric}:
            raise SubmissionError(
                f"{LEDGER} is about another metric",
                expected=str(*others),
                got=entry.metric,
                remedy="move the folder ledger away, which begins another",
            )
        write_atomically(entry.copy, lambda temporary: temporary.write_bytes(data))
        write_json_lines(LEDGER, map(asdict, [*lines, entry]))


def read_ledger() -> list[Entry]:
    """The submissions in the order they were first added.

    Raises:
        RunError: there is none, or a line is damaged.
    """
    entries = {entry.sha256: entry for entry in _read_lines()}
    if not entries:
        raise RunError(f"{LEDGER} holds no submission", remedy="add one: python -m pipeline ledger add runs/demo")
    return list(entries.values())


def _read_lines() -> list[Entry]:
    lines = read_text(LEDGER).splitlines() if LEDGER.exists() else []
    try:
        return [TypeAdapter(Entry).validate_python(parse_json(line)) for line in lines]
    except (ValueError, ValidationError) as error:
        raise RunError(f"{LEDGER} is damaged: {str(error).splitlines()[0]}", remedy="correct its lines") from None


def _with_scores(entry: Entry, run: RunFolder) -> Entry:
    if not run.submitted.exists():
        raise RunError(f"{run.path} holds no submission", remedy=f"write it: python make_submission.py {run.path}")
    record, scores = SubmissionRecord.load(run.submitted), Scores.load(run.scores)
    low, high = scores.cross_fitted.interval
    return replace(
        entry,
        runs=record.runs,
        metric=record.metric,
        greater_is_better=scores.greater_is_better,
        cross_fitted=record.cross_fitted,
        interval=None if low is None or high is None else (low, high),
        rows=scores.rows,
        test_rows=len(read_predictions(run.test, [])),
        forecast=record.forecast,
    )


def submissions(entries: Sequence[Entry]) -> Submissions:
    """The entries as `draw_private` takes them. Raises RunError without any cross-fitted score."""
    known = _with_interval(entries)
    rows, test_rows = float(np.mean([each[1] for each in known])), float(np.mean([each[2] for each in known]))
    variance = rows * float(np.mean([((high - low) / _WIDTH) ** 2 for (low, high), _, _ in known]))
    shares = [each.public_share for each in entries if each.public_share]
    share = shares[-1] if shares else USUAL_SHARE
    sign, expected = sign_of(entries), [each.forecast or (each.cross_fitted, 0.0, 0.0) for each in entries]
    errors = [(high - low) / _WIDTH for _, low, high in expected]
    return Submissions(
        _numbers([value for value, _, _ in expected], sign),
        np.maximum(errors, math.sqrt(variance * (1 / rows + 1 / test_rows))),
        _numbers([each.public for each in entries], sign),
        similarities([each.copy for each in entries]),
        variance,
        rows,
        share * test_rows,
        (1 - share) * test_rows,
    )


def sign_of(entries: Sequence[Entry]) -> float:
    """-1 where smaller scores are better, else 1."""
    return 1.0 if next(each for each in entries if each.metric).greater_is_better else -1.0


def _with_interval(entries: Sequence[Entry]) -> list[tuple[tuple[float, float], int, int]]:
    known = [(each.interval, each.rows, each.test_rows) for each in entries if each.interval and each.test_rows]
    if not known:
        raise RunError(
            "no submission in the ledger has a cross-fitted score with an interval",
            remedy="add a run first: python -m pipeline ledger add runs/demo",
        )
    return known


def _numbers(values: Sequence[float | None], sign: float) -> Floats:
    return np.array([math.nan if value is None else sign * value for value in values])


def similarities(files: Sequence[Path]) -> Floats:
    """Correlations (S, S) of submissions, each column less its mean; 1 or 0 where one is constant."""
    tables = [_table(file) for file in files]
    found = np.eye(len(tables))
    for place, table in enumerate(tables):
        for other in range(place):
            pair = table.align(tables[other], join="outer", fill_value=0.0)
            same = float(pair[0].equals(pair[1]))
            one, two = ((each - each.mean()).to_numpy().ravel() for each in pair)
            norm = math.sqrt(float(one @ one) * float(two @ two))
            found[place, other] = found[other, place] = float(one @ two) / norm if norm > 0 else same
    return found


def _table(path: Path) -> pd.DataFrame:
    """A submission as numbers by id: its columns, or for text a column for each word. Raises SubmissionError."""
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        frame = frame.set_index(frame.columns[0])
        numbers = frame.apply(pd.to_numeric, errors="coerce")
        if not numbers.notna().to_numpy().all():
            words = frame.agg(" ".join, axis=1).str.split(_WORDS, regex=True).explode()
            numbers = pd.crosstab(words.index, words).clip(upper=1)
    except (OSError, ValueError, IndexError) as error:
        raise SubmissionError(f"{path} is not readable as CSV: {error}", remedy="give a CSV file") from None
    return pd.DataFrame(numbers[~numbers.index.duplicated()].astype(float))
