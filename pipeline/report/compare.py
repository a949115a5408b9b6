"""Compares two runs by paired resamples of their rows: `python -m pipeline compare RUN RUN`."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from rich.console import Console

from pipeline.competition.folds import folds_mark
from pipeline.competition.table import read_train
from pipeline.config import Config
from pipeline.errors import RunError
from pipeline.events import ignore
from pipeline.files import read_folds, read_predictions
from pipeline.metrics.bootstrap import Interval, interval, resample
from pipeline.metrics.registry import Metric, get_metric
from pipeline.metrics.targets import Bits, Floats
from pipeline.run.folder import RunFolder
from pipeline.run.submission.joined_out_of_fold import JoinedOutOfFold, join_out_of_fold
from pipeline.thresholds.cross_fitting import BEST_EPOCH_NOTE, score_out_of_fold
from pipeline.thresholds.row_rules import row_rules


class Comparison(NamedTuple):
    """The cross-fitted scores of two runs on the same rows."""

    metric: str
    rows: int
    unshared: int  # rows that only one run has validated so far
    grouped: bool  # whether rows of one group were resampled together
    scores: tuple[float, float]
    difference: float  # second minus first
    resamples: int  # in which both runs have a score
    spread: Interval  # 95 % interval of the difference
    better: float  # share of resamples in which the second is better


def compare(first: RunFolder, second: RunFolder) -> Comparison:
    """Compare two scored runs by paired resamples of the rows, or groups, that both have validated.

    The decisions of a run follow its own config and are cross-fitted over its own folds, as in `scores.json`. The
    interval is conditional on the trained models: it does not include the variance between seeds.

    Raises:
        RunError: a run is not scored, or they differ in metric, labels or rows.
        ConfigError: the metric is a custom function, which is not run from a run folder.
    """
    configs = first.read_config(), second.read_config()
    if configs[0].competition.metric != configs[1].competition.metric:
        raise RunError(
            f"{second.path} is scored by another metric than {first.path}",
            expected=str(configs[0].competition.metric),
            got=str(configs[1].competition.metric),
            remedy="compare runs of one competition and one metric",
        )
    train = read_train(configs[0].competition, ignore)
    metric = get_metric(configs[0].competition.metric, train.labels)
    rows = join_out_of_fold((first, second), train, train.labels)
    groups = rows.group_numbers
    tables = [_scored_table(config, metric, rows, place) for place, config in enumerate(configs)]
    values = tuple(metric.function(rows.targets, table).value for table in tables)
    gains = np.subtract(*resample(metric, rows.targets, tables[::-1], groups=groups))
    known = gains[~np.isnan(gains)]
    better = known > 0 if metric.greater_is_better else known < 0
    share = float(better.mean()) if known.size else math.nan
    return Comparison(
        metric=metric.name,
        rows=len(rows.ids),
        unshared=rows.unshared,
        grouped=groups is not None,
        scores=(values[0], values[1]),
        difference=values[1] - values[0],
        resamples=known.size,
        spread=interval(gains),
        better=share,
    )


def _scored_table(config: Config, metric: Metric, rows: JoinedOutOfFold, place: int) -> Bits | Floats:
    """The input of the metric for the run at `place`: cross-fitted decisions, or probabilities."""
    parts, _ = rows.parts(place, config)
    result = score_out_of_fold(
        metric,
        rows.targets,
        rows.probabilities(place),
        parts,
        policy=config.thresholds.policy,
        rules=row_rules(config.submission, config.competition, rows.labels),
        calibration=config.thresholds.calibration,
        groups=rows.group_numbers,
        resamples=0,
    )
    return result.cross_fitted_decisions if metric.takes == "decisions" else result.cross_fitted_probabilities


def _folds_mark(run: RunFolder) -> str | None:
    """The folds that a run has validated so far, as text; None if it has validated all."""
    validated = {*read_predictions(run.oof, ["fold"])["fold"].tolist()}
    return folds_mark([*validated], [*({*read_folds(run.folds)["fold"].tolist()} - {-1})])


def print_comparison(console: Console, first: RunFolder, second: RunFolder) -> None:
    """Print the scores of two runs and their difference."""
    runs = first, second
    found = compare(first, second)
    unit = "groups" if found.grouped else "rows"
    for run, value in zip(runs, found.scores, strict=True):
        mark = f" ({BEST_EPOCH_NOTE})" if run.read_config().train.select == "best" else ""
        console.print(f"{run.path}: {found.metric} {value:.4f} cross-fitted{mark}")
    console.print(
        f"second minus first: {found.difference:+.4f}, 95 % interval {found.spread.low:+.4f} to "
        f"{found.spread.high:+.4f} over {found.resamples:,} paired resamples of {unit} ({found.rows} rows); "
        f"the second is better in {100 * found.better:.0f} % of them",
    )
    for run in runs:
        if part := _folds_mark(run):
            console.print(f"{run.path}: {part}")
    if found.unshared:
        console.print(f"{found.unshared} rows are left out: only one run has validated them so far")
    if found.spread.low <= 0 <= found.spread.high:
        console.print("the interval contains 0: these rows do not show that one run is better")
