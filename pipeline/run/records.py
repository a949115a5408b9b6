"""The JSON files of a run as records: each is saved as it is, and checked when it is loaded."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from pydantic import StrictBool, StrictFloat, StrictInt, StrictStr, TypeAdapter, ValidationError

from pipeline.config import Config
from pipeline.errors import RunError
from pipeline.files import read_json, write_json

Score = StrictFloat | None
"""None where the score has no value, as JSON has no NaN."""


@dataclass(frozen=True)
class Record:
    """The content of a JSON file, key by key."""

    def save(self, path: Path) -> None:
        """Write the record to `path`, whole or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """The record in `path`; keys that it does not know are left out.

        Raises:
            RunError: the file is missing or broken, lacks a key, or holds a value of the wrong kind.
        """
        try:
            return TypeAdapter(cls).validate_python(read_json(path))
        except ValidationError as error:
            raise _damaged(path, error) from None


def _damaged(path: Path, error: ValidationError) -> RunError:
    """The error for the first mistake in the file at `path`."""
    first = error.errors(include_url=False)[0]
    kind, key = first["type"], ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, expected ")
    return RunError(
        f"{path} does not hold what the pipeline writes there",
        expected=f"the key {key}" if kind == "missing" else f"{key}: {message}" if key else message,
        got="no such key" if kind == "missing" else None if kind == "value_error" else repr(first["input"])[:80],
        remedy="restore the file; or delete it and run the same command again, which writes it anew",
    )


@dataclass(frozen=True)
class PredictSettings:
    """The settings that out-of-fold predictions depend on beside the weights."""

    tta: tuple[StrictStr, ...]
    average: StrictStr
    seeds: StrictInt

    @classmethod
    def of(cls, config: Config) -> Self:
        """The settings that `config` asks for."""
        return cls(tuple(config.predict.tta), config.predict.average, config.train.seeds)


@dataclass(frozen=True)
class FoldDone(Record):
    """done.json: the fold is finished, after so many epochs, and predicted with these settings."""

    epochs: StrictInt
    predict: PredictSettings


@dataclass(frozen=True)
class DataDigest(Record):
    """data.json: the labels, and a digest of the ids and targets that a run began with."""

    labels: tuple[StrictStr, ...]
    targets_sha256: StrictStr


@dataclass(frozen=True)
class FoldedScores:
    """A score over all rows, over the rows of each part, and the 95 % interval of the first."""

    pooled: Score
    mean: Score
    interval: tuple[Score, Score]
    folds: tuple[Score, ...]


@dataclass(frozen=True)
class ThresholdFreeScores:
    """Scores of the probabilities; `prevalence_map` is the mAP of a constant score per label."""

    map: Score
    prevalence_map: Score
    auc_macro: Score


@dataclass(frozen=True)
class LabelScores:
    """The scores of one label; those of decisions are cross-fitted, the threshold is fitted on all rows."""

    positives: StrictInt
    average_precision: Score
    auc: Score
    threshold: Score
    precision: Score
    recall: Score
    f1: Score


@dataclass(frozen=True)
class FurtherScore:
    """A metric over all rows: of the cross-fitted decisions or probabilities, and of decisions at threshold 0.5."""

    cross_fitted: Score
    at_half: Score  # None for a metric of probabilities


@dataclass(frozen=True)
class Scores(Record):
    """scores.json: every score of the validated rows, those of `folds` out of `of_folds`."""

    metric: StrictStr
    greater_is_better: StrictBool
    rows: StrictInt
    folds: tuple[StrictInt, ...]
    of_folds: tuple[StrictInt, ...]
    in_sample: FoldedScores
    cross_fitted: FoldedScores
    fitted: StrictBool  # whether anything was fitted; if not, both scores above are the same
    policy: StrictStr
    threshold_free: ThresholdFreeScores
    labels: dict[StrictStr, LabelScores]
    notes: tuple[StrictStr, ...]
    further: dict[StrictStr, FurtherScore] = field(default_factory=dict)  # the metric itself and `competition.also`

    def __post_init__(self) -> None:
        if len(self.in_sample.folds) != len(self.cross_fitted.folds):
            raise ValueError("expected in_sample and cross_fitted for the same folds")

    @property
    def part(self) -> str:
        """The word for what thresholds are cross-fitted over: the folds, or parts of a single one."""
        return "part" if len(self.folds) == 1 else "fold"

    @property
    def complete(self) -> bool:
        """Whether all folds of the run are scored."""
        return self.folds == self.of_folds


@dataclass(frozen=True)
class Platt:
    """The calibration of one label: sigmoid(slope * logit + intercept)."""

    slope: StrictFloat
    intercept: StrictFloat


@dataclass(frozen=True)
class Thresholds(Record):
    """thresholds.json: what to decide test rows by, the settings that it fits, and its scores.

    Attributes:
        policy: as configured; `chosen` is what it came to on all rows.
        platt: by label; None without calibration.
        rows: `SubmissionConfig.rows`.
        folds: the folds that everything was fitted on.
        values: the threshold of each label.
        rates: the share of the validated rows that each label was decided for, cross-fitted.
    """

    policy: StrictStr
    chosen: StrictStr
    calibration: StrictStr
    platt: dict[StrictStr, Platt] | None
    rows: dict[StrictStr, StrictStr | StrictInt | None]
    predict: PredictSettings
    folds: tuple[StrictInt, ...]
    metric: StrictStr
    in_sample: Score
    cross_fitted: Score
    notes: tuple[StrictStr, ...]
    values: dict[StrictStr, StrictFloat]
    rates: dict[StrictStr, StrictFloat]

    def __post_init__(self) -> None:
        if any(table is not None and table.keys() != self.values.keys() for table in (self.rates, self.platt)):
            raise ValueError("expected values, rates and platt for the same labels")


@dataclass(frozen=True)
class SubmissionRecord(Record):
    """submission.json: the runs and folds that predicted a submission, their scores, and the forecast for the test."""

    runs: tuple[StrictStr, ...]
    folds: tuple[tuple[StrictInt, ...], ...]
    labels: tuple[StrictStr, ...]
    metric: StrictStr
    cross_fitted: Score
    in_sample: Score
    map: Score
    notes: tuple[StrictStr, ...]
    forecast: tuple[StrictFloat, StrictFloat, StrictFloat] | None = None  # of the test score: value, 95 % interval

    def __post_init__(self) -> None:
        if len(self.runs) != len(self.folds):
            raise ValueError("expected as many folds as runs")


@dataclass(frozen=True)
class MemberRecord:
    """A member of a blend: its mean weight, its score alone, the blend's without it, its correlation with the others.

    The scores are of decisions as often as labels are positive, or of probabilities if the metric takes these.
    """

    name: StrictStr
    weight: StrictFloat
    alone: Score
    left_out: Score
    correlation: Score


@dataclass(frozen=True)
class BlendRecord(Record):
    """blend.json: the members of a blend, and its method; `scores` are those that the method was chosen by."""

    members: tuple[MemberRecord, ...]
    mean: StrictStr
    kind: StrictStr
    weights: dict[StrictStr, tuple[StrictFloat, ...]]  # by label
    scores: dict[StrictStr, Score]
    fold_methods: tuple[StrictStr, ...]
    notes: tuple[StrictStr, ...]


@dataclass(frozen=True)
class Tracked(Record):
    """tracking.json: by tracker, the ids of the run ("") and its trainings there, and the last step that each got."""

    ids: dict[StrictStr, dict[StrictStr, StrictStr]] = field(default_factory=dict)
    steps: dict[StrictStr, dict[StrictStr, StrictInt]] = field(default_factory=dict)


def finite(value: float) -> Score:
    """`value` as a float, or None where it is not finite."""
    return float(value) if math.isfinite(value) else None
