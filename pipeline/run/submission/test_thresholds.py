"""The rule that decides test rows: that of one finished run, or a new one for the mean of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.competition.table import read_train
from pipeline.errors import PipelineError, RunError, listing, nearest
from pipeline.events import ignore
from pipeline.files import read_predictions
from pipeline.metrics.registry import Metric, get_metric
from pipeline.run.records import Scores, Thresholds, finite
from pipeline.run.submission.joined_out_of_fold import JoinedOutOfFold, join_out_of_fold
from pipeline.run.trained_run import TrainedRun
from pipeline.thresholds.calibration import Calibration
from pipeline.thresholds.cross_fitting import BEST_EPOCH_NOTE, OutOfFoldScores, score_out_of_fold
from pipeline.thresholds.decision_rule import DecisionRule
from pipeline.thresholds.forecast import Forecast, forecast, no_forecast
from pipeline.thresholds.row_rules import RowRules
from pipeline.thresholds.transfer import rates


class FittedRule(NamedTuple):
    """A rule for test rows with its out-of-fold scores.

    Attributes:
        rates: per label, the share of the validated rows that it was decided for, cross-fitted.
        score_notes: sentences that belong beside the scores.
        notes: other sentences on how the rule was fitted.
    """

    rule: DecisionRule
    cross_fitted: float | None
    in_sample: float | None
    map: float | None
    rates: Mapping[str, float]
    score_notes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    mean: _ScoredMean | None = None  # of several runs


def read_decision_rule(run: TrainedRun, rules: RowRules, labels: Sequence[str] | None = None) -> DecisionRule:
    """The decision rule of a finished run, its columns in the order of `labels` (by default that of the run).

    Raises:
        RunError: `labels` are not those of the run, or its out-of-fold probabilities are missing or damaged.
    """
    thresholds, labels = run.thresholds, list(run.labels if labels is None else labels)
    unknown = sorted({*labels} ^ {*run.labels})
    if unknown:
        raise RunError(
            f"{run.folder.thresholds} is for other labels: '{unknown[0]}'{nearest(unknown[0], run.labels)}",
            expected=listing(labels, 12),
            got=listing(run.labels, 12),
            remedy="the run folder was changed by hand: start it with --fresh",
        )
    return DecisionRule(
        calibration=read_calibration(thresholds, labels),
        thresholds=np.array([thresholds.values[name] for name in labels]),
        out_of_fold=read_predictions(run.folder.oof, labels)[labels].to_numpy(dtype=np.float64),
        policy=thresholds.chosen,
        transfer=run.config.thresholds.transfer,
        rules=rules,
    )


def read_calibration(thresholds: Thresholds, labels: Sequence[str]) -> Calibration | None:
    """The calibration of `labels`, in this order; None without one."""
    if thresholds.platt is None:
        return None
    fitted = [thresholds.platt[name] for name in labels]
    return Calibration(np.array([each.slope for each in fitted]), np.array([each.intercept for each in fitted]))


def choose_decision_rule(runs: Sequence[TrainedRun], rules: RowRules) -> FittedRule:
    """The rule of one run; for several, or for some of its folds, one fitted on their mean out-of-fold probabilities.

    The settings of that fit are those of the first run.

    Raises:
        RunError: a file is missing or damaged, or the runs do not validate the same rows.
    """
    scored = len(runs) == 1 and runs[0].folds == runs[0].thresholds.folds
    return _of_one(runs[0], rules) if scored else _fit_to_mean(runs, rules)


def _of_one(run: TrainedRun, rules: RowRules) -> FittedRule:
    thresholds = run.thresholds
    scores = Scores.load(run.folder.scores) if run.folder.scores.exists() else None
    if scores is not None and scores.folds != thresholds.folds:  # killed between the two: scores of other folds
        scores = None
    return FittedRule(
        read_decision_rule(run, rules),
        cross_fitted=thresholds.cross_fitted,
        in_sample=thresholds.in_sample,
        map=None if scores is None else scores.threshold_free.map,
        rates=thresholds.rates,
        score_notes=thresholds.notes if scores is None else scores.notes,
    )


def _fit_to_mean(runs: Sequence[TrainedRun], rules: RowRules) -> FittedRule:
    first, labels = runs[0], list(runs[0].labels)
    metric = get_metric(first.config.competition.metric, labels)
    mean = _score_mean(runs, rules, metric)
    rows, probabilities, scored, notes = mean
    decided = rates(scored.cross_fitted_decisions, ~np.isnan(rows.targets))
    transfer = first.config.thresholds.transfer
    return FittedRule(
        DecisionRule(scored.calibration, scored.thresholds, probabilities, scored.policy, transfer, rules),
        cross_fitted=finite(scored.cross_fitted.pooled.value),
        in_sample=finite(scored.in_sample.pooled.value),
        map=finite(get_metric("map").function(rows.targets, probabilities).value),
        rates=dict(zip(labels, decided.tolist(), strict=True)),
        score_notes=(
            *notes,
            *(f"{run.folder.path}: {BEST_EPOCH_NOTE}" for run in runs if run.config.train.select == "best"),
        ),
        notes=tuple(notes),
        mean=mean,
    )


class _ScoredMean(NamedTuple):
    """Out-of-fold rows of several runs, the mean of their probabilities (N, K), its scores, and notes on them."""

    rows: JoinedOutOfFold
    probabilities: NDArray[np.float64]
    scored: OutOfFoldScores
    notes: list[str]


def _score_mean(runs: Sequence[TrainedRun], rules: RowRules, metric: Metric) -> _ScoredMean:
    first = runs[0]
    train = read_train(first.config.competition, ignore)
    rows = join_out_of_fold([run.folder for run in runs], train, list(first.labels), [run.folds for run in runs])
    probabilities = np.mean([rows.probabilities(place) for place in range(len(runs))], axis=0)
    parts, notes = rows.parts(0, first.config)
    if any((table["fold"] != rows.tables[0]["fold"]).any() for table in rows.tables[1:]):
        notes.append("the runs have different folds: the cross-fitted score of their mean may flatter a little")
    if rows.unshared:
        notes.append(
            f"the runs have not finished the same folds: thresholds rest on the {len(rows.ids)} rows that all of "
            "them have validated"
        )
    settings = first.config.thresholds
    scored = score_out_of_fold(
        metric,
        rows.targets,
        probabilities,
        parts,
        policy=settings.policy,
        rules=rules,
        calibration=settings.calibration,
        groups=rows.group_numbers,
        resamples=0,
    )
    return _ScoredMean(rows, probabilities, scored, notes)


def forecast_test(runs: Sequence[TrainedRun], fitted: FittedRule, probabilities: NDArray[np.float64]) -> Forecast:
    """The forecast of the test score; see `pipeline.thresholds.forecast`.

    Args:
        runs: the runs whose models predicted the test.
        fitted: what decides the test rows.
        probabilities: of the test rows (M, K).
    """
    first = runs[0]
    try:
        metric = get_metric(first.config.competition.metric, first.labels)
        rows, _, scored, _ = fitted.mean or _score_mean(runs, fitted.rule.rules, metric)
    except PipelineError as error:  # a custom metric, or a training table that is not here
        return no_forecast(error.problem)
    models = min(len(run.folds) for run in runs)
    groups = rows.group_numbers
    return forecast(
        metric, rows.targets, scored, fitted.rule, folds=models, models=models, test=probabilities, groups=groups
    )
