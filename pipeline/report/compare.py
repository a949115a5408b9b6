"""Which of two runs is better, and is it more than chance? `python -m pipeline.report.compare RUN RUN`."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.commands import run_command
from pipeline.competition.submission import row_rules
from pipeline.competition.table import read_train
from pipeline.config import Config
from pipeline.errors import RunError
from pipeline.evaluation.arrays import Bits, Floats, Ints
from pipeline.evaluation.bootstrap import Interval, interval, resample
from pipeline.evaluation.honest import EPOCH_MARK, score_out_of_fold
from pipeline.evaluation.metrics import Metric, get_metric
from pipeline.report.console import make_console
from pipeline.runs import RunFolder, read_predictions


class Comparison(NamedTuple):
    """Two runs' cross-fitted scores on the same rows."""

    metric: str
    rows: int
    grouped: bool  # whether rows of one group were resampled together
    scores: tuple[float, float]
    difference: float  # second minus first
    spread: Interval  # 95 % of the difference, over paired resamples
    better: float  # the share of resamples in which the second is better


def compare(first: RunFolder, second: RunFolder) -> Comparison:
    """Compare two scored runs by paired resamples of the rows, or groups, that both have validated.

    Each run's decisions are made as its own config says, cross-fitted over its own folds, as in `scores.json`. The
    interval is conditional on the trained models: it does not hold what another seed would have given.

    Raises:
        RunError: a run is not scored, or they differ in metric, labels or rows.
    """
    configs = first.read_config(), second.read_config()
    if configs[0].competition.metric != configs[1].competition.metric:
        raise RunError(
            f"{second.path} is judged by another metric than {first.path}",
            expected=str(configs[0].competition.metric),
            got=str(configs[1].competition.metric),
            remedy="compare runs of one competition and one metric",
        )
    metric, table = get_metric(configs[0].competition.metric), read_train(configs[0].competition)
    row_of = {id_: row for row, id_ in enumerate(table.ids)}
    oofs = [read_predictions(run.oof, ["fold", *table.labels]) for run in (first, second)]
    if set(oofs[0].index) != set(oofs[1].index) or not set(oofs[0].index) <= set(row_of):
        raise RunError(
            f"{first.path} and {second.path} do not validate the same rows",
            got=f"{len(set(oofs[0].index) ^ set(oofs[1].index))} ids in one of them only",
            remedy="compare runs on the same training table",
        )
    ids = sorted(oofs[0].index, key=row_of.__getitem__)  # as the run's own scores have them
    rows = np.array([row_of[id_] for id_ in ids])
    targets = table.truths[rows]
    groups = None if table.groups is None else np.unique([table.groups[row] for row in rows], return_inverse=True)[1]
    tables = [_judged(config, metric, targets, oof.loc[ids], groups) for config, oof in zip(configs, oofs, strict=True)]
    values = tuple(metric.function(targets, judged).value for judged in tables)
    gains = np.subtract(*resample(metric, targets, tables[::-1], groups=groups))
    known = gains[~np.isnan(gains)]
    better = known > 0 if metric.greater_is_better else known < 0
    share = float(better.mean()) if known.size else math.nan
    return Comparison(
        metric.name, len(ids), groups is not None, (values[0], values[1]), values[1] - values[0], interval(gains), share
    )


def _judged(
    config: Config, metric: Metric, targets: NDArray[Any], oof: pd.DataFrame, groups: Ints | None
) -> Bits | Floats:
    """What the metric judges of one run: cross-fitted decisions, or the probabilities themselves."""
    parts, labels = oof["fold"].to_numpy(), [name for name in oof.columns if name != "fold"]
    if np.unique(parts).size < 2:
        raise RunError(
            "a run with one validation fold has no folds to cross-fit over",
            remedy="compare runs with two folds or more",
        )
    honest = score_out_of_fold(
        metric,
        targets,
        oof[labels].to_numpy(),
        parts,
        policy=config.thresholds.policy,
        rules=row_rules(config.submission, config.competition, tuple(labels)),
        calibration=config.thresholds.calibration,
        groups=groups,
        resamples=0,
    )
    return honest.cross_fitted_decisions if metric.takes == "decisions" else honest.cross_fitted_probabilities


def main(arguments: argparse.Namespace) -> None:
    """Print both scores and their difference."""
    runs = RunFolder(arguments.first), RunFolder(arguments.second)
    found = compare(*runs)
    unit = "groups" if found.grouped else "rows"
    console = make_console()
    for run, value in zip(runs, found.scores, strict=True):
        mark = f" ({EPOCH_MARK})" if run.read_config().train.select == "best" else ""
        console.print(f"{run.path}: {found.metric} {value:.4f} cross-fitted{mark}", markup=False)
    console.print(
        f"second minus first: {found.difference:+.4f}, 95 % interval {found.spread.low:+.4f} to "
        f"{found.spread.high:+.4f} over 1,000 paired resamples of {unit} ({found.rows} rows); the second is better in "
        f"{100 * found.better:.0f} % of them",
        markup=False,
    )
    if found.spread.low <= 0 <= found.spread.high:
        console.print("the interval holds 0: these rows do not tell the two apart", markup=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m pipeline.report.compare", description=__doc__)
    parser.add_argument("first", type=Path, metavar="RUN", help="a scored run, for example runs/demo")
    parser.add_argument("second", type=Path, metavar="RUN", help="another one on the same training table")
    given = parser.parse_args()
    sys.exit(run_command(lambda: main(given), after_interrupt="nothing was written"))
