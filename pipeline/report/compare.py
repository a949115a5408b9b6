"""Which of two runs is better, and is it more than chance? `python -m pipeline compare RUN RUN`."""

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
    """Two runs' cross-fitted scores on the same rows."""

    metric: str
    rows: int
    unshared: int  # rows that one run alone has validated: of folds that the other has not finished
    grouped: bool  # whether rows of one group were resampled together
    scores: tuple[float, float]
    difference: float  # second minus first
    resamples: int  # in which both have a score; fewer of large tables where the metric has no counts
    spread: Interval  # 95 % of the difference, over paired resamples
    better: float  # the share of resamples in which the second is better


def compare(first: RunFolder, second: RunFolder) -> Comparison:
    """Compare two scored runs by paired resamples of the rows, or groups, that both have validated.

    Each run's decisions are made as its own config says, cross-fitted over its own folds, as in `scores.json`. The
    interval is conditional on the trained models: it does not hold what another seed would have given.

    Raises:
        RunError: a run is not scored, or they differ in metric, labels or rows.
        ConfigError: the metric is a function of somebody's own.
    """
    configs = first.read_config(), second.read_config()
    if configs[0].competition.metric != configs[1].competition.metric:
        raise RunError(
            f"{second.path} is judged by another metric than {first.path}",
            expected=str(configs[0].competition.metric),
            got=str(configs[1].competition.metric),
            remedy="compare runs of one competition and one metric",
        )
    table = read_train(configs[0].competition, ignore)
    metric = get_metric(configs[0].competition.metric, table.labels)
    rows = join_out_of_fold((first, second), table, table.labels)
    groups = rows.group_numbers
    tables = [_judged(config, metric, rows, place) for place, config in enumerate(configs)]
    values = tuple(metric.function(rows.targets, judged).value for judged in tables)
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


def _judged(config: Config, metric: Metric, rows: JoinedOutOfFold, place: int) -> Bits | Floats:
    """What the metric judges of the run at `place`: cross-fitted decisions, or the probabilities themselves."""
    parts, _ = rows.parts(place, config)
    honest = score_out_of_fold(
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
    return honest.cross_fitted_decisions if metric.takes == "decisions" else honest.cross_fitted_probabilities


def _folds_mark(run: RunFolder) -> str | None:
    """Which of its folds a run has validated so far; None for all of them."""
    validated = {*read_predictions(run.oof, ["fold"])["fold"].tolist()}
    return folds_mark([*validated], [*({*read_folds(run.folds)["fold"].tolist()} - {-1})])


def print_comparison(console: Console, first: RunFolder, second: RunFolder) -> None:
    """Print the scores of two runs and their difference."""
    runs = first, second
    found = compare(first, second)
    unit = "groups" if found.grouped else "rows"
    for run, value in zip(runs, found.scores, strict=True):
        mark = f" ({BEST_EPOCH_NOTE})" if run.read_config().train.select == "best" else ""
        console.print(f"{run.path}: {found.metric} {value:.4f} cross-fitted{mark}", markup=False)
    console.print(
        f"second minus first: {found.difference:+.4f}, 95 % interval {found.spread.low:+.4f} to "
        f"{found.spread.high:+.4f} over {found.resamples:,} paired resamples of {unit} ({found.rows} rows); "
        f"the second is better in {100 * found.better:.0f} % of them",
        markup=False,
    )
    for run in runs:
        if part := _folds_mark(run):
            console.print(f"{run.path}: {part}", markup=False)
    if found.unshared:
        console.print(f"{found.unshared} rows are left out: one run alone has validated them so far", markup=False)
    if found.spread.low <= 0 <= found.spread.high:
        console.print("the interval holds 0: these rows do not tell the two apart", markup=False)
