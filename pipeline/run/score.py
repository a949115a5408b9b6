"""From the out-of-fold logits of finished folds to thresholds and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.competition.folds import cross_fitting_parts, folds_mark, group_numbers
from pipeline.competition.folds.rows import rows_of
from pipeline.competition.table import TrainTable
from pipeline.config import Config
from pipeline.errors import FoldError, RunError, listing
from pipeline.files import read_predictions, write_parquet
from pipeline.metrics.label_table import LabelTable, per_label_table
from pipeline.metrics.means import mean_over_labels
from pipeline.metrics.registry import Metric, get_metric
from pipeline.metrics.targets import blocks, by_label, split_targets
from pipeline.prediction.ensemble import sigmoid
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from pipeline.run.records import (
    FoldedScores,
    FurtherScore,
    LabelScores,
    Platt,
    PredictSettings,
    Scores,
    ThresholdFreeScores,
    Thresholds,
    finite,
)
from pipeline.thresholds.cross_fitting import BEST_EPOCH_NOTE, FoldedScore, OutOfFoldScores, score_out_of_fold
from pipeline.thresholds.row_rules import row_rules
from pipeline.thresholds.transfer import rates

_BLOCK_LABELS = 50  # that are read at once


def score_run(plan: Plan, run: RunFolder, folds: Sequence[int]) -> Scores | None:
    """Join the out-of-fold logits by id, fit and cross-fit thresholds, write and return the run's scores.

    Args:
        plan: what `prepare` made.
        run: the run's folder.
        folds: the finished folds, ascending; scores of some folds are marked as such.

    Returns:
        None where the one finished fold is too small to be scored alone.

    Raises:
        RunError: a fold's predictions are missing, or are not of its validation rows.
    """
    config, table = plan.config, plan.table
    validated = np.flatnonzero(np.isin(plan.folds, folds))
    mark = folds_mark(folds, plan.fold_numbers)
    notes = [
        *([BEST_EPOCH_NOTE] if config.train.select == "best" else []),
        *([mark] if mark else []),
        *_outdated(plan, run, folds),
    ]
    try:
        return score_rows(
            run,
            config,
            [plan.metric, *(get_metric(spec, table.labels, custom_functions=True) for spec in config.competition.also)],
            table.take(validated.tolist()),
            _out_of_fold_probabilities(plan, run, folds, validated),
            plan.folds[validated],
            of_folds=plan.fold_numbers,
            notes=notes,
        )
    except FoldError:
        if len(folds) < len(plan.fold_numbers):
            return None
        raise


def score_rows(
    run: RunFolder,
    config: Config,
    metrics: Sequence[Metric],
    table: TrainTable,
    probabilities: NDArray[np.float64],
    row_folds: NDArray[np.int64],
    *,
    of_folds: Sequence[int],
    notes: Sequence[str],
) -> Scores:
    """Fit and cross-fit thresholds on out-of-fold probabilities; write and return the scores of a run, or of a blend.

    Args:
        run: the folder.
        config: its settings.
        metrics: that of the competition, and those of `competition.also`.
        table: the N validated rows.
        probabilities: (N, K).
        row_folds: (N,) the fold of each row.
        of_folds: all folds that the run has.
        notes: sentences that belong beside the scores.

    Raises:
        FoldError: as `cross_fitting_parts`.
    """
    labels, metric, folds = list(table.labels), metrics[0], np.unique(row_folds).tolist()
    parts, about_parts = cross_fitting_parts(
        table.ids, row_folds, table.positives, labels, seed=config.folds.seed, groups=table.groups
    )
    targets, notes = by_label(table.truths), [*notes, *about_parts]
    rules = row_rules(config.submission, config.competition, table.labels)
    scored = score_out_of_fold(
        metric,
        targets,
        probabilities,
        parts,
        policy=config.thresholds.policy,
        rules=rules,
        calibration=config.thresholds.calibration,
        groups=group_numbers(table.groups),
    )
    figures = per_label_table(targets, probabilities, scored.cross_fitted_decisions)
    scores = build_scores(scored, figures, metric=metric, labels=labels, folds=folds, of_folds=of_folds, notes=notes)
    at_half = rules.apply(probabilities, np.full(len(labels), 0.5))
    scores = replace(scores, further={each.name: _further(each, targets, at_half, scored) for each in metrics})
    frame = pd.DataFrame(probabilities, columns=labels, copy=False)
    frame.insert(0, "id", list(table.ids))
    frame.insert(1, "fold", row_folds)
    write_parquet(run.oof, frame)
    decided = rates(scored.cross_fitted_decisions, split_targets(targets)[1])
    thresholds = build_thresholds(scored, config, metric=metric, labels=labels, folds=folds, rates=decided, notes=notes)
    thresholds.save(run.thresholds)
    scores.save(run.scores)
    return scores


def _further(
    metric: Metric, targets: NDArray[Any], at_half: NDArray[np.uint8], scored: OutOfFoldScores
) -> FurtherScore:
    decides = metric.takes == "decisions"
    table = scored.cross_fitted_decisions if decides else scored.cross_fitted_probabilities
    return FurtherScore(
        cross_fitted=finite(metric.function(targets, table).value),
        at_half=finite(metric.function(targets, at_half).value) if decides else None,
    )


def build_scores(
    scored: OutOfFoldScores,
    figures: LabelTable,
    *,
    metric: Metric,
    labels: Sequence[str],
    folds: Sequence[int],
    of_folds: Sequence[int],
    notes: Sequence[str],
) -> Scores:
    """The scores of the validated rows of `folds`; `figures` are those of their cross-fitted decisions."""
    columns = (figures.average_precision, figures.auc, scored.thresholds, figures.precision, figures.recall, figures.f1)
    rows = zip(labels, figures.positives.tolist(), *columns, strict=True)
    left_out = [labels[index] for index in scored.cross_fitted.pooled.left_out]
    return Scores(
        metric=metric.name,
        greater_is_better=metric.greater_is_better,
        rows=len(scored.cross_fitted_decisions),
        folds=tuple(folds),
        of_folds=tuple(of_folds),
        in_sample=_folded(scored.in_sample),
        cross_fitted=_folded(scored.cross_fitted),
        fitted=scored.fitted,
        policy=scored.policy,
        threshold_free=ThresholdFreeScores(
            map=finite(mean_over_labels(figures.average_precision).value),
            prevalence_map=finite(mean_over_labels(figures.constant_precision).value),
            auc_macro=finite(mean_over_labels(figures.auc).value),
        ),
        labels={name: LabelScores(count, *map(finite, row)) for name, count, *row in rows},
        notes=(
            *notes,
            *_about_parts(scored, "part" if len(folds) == 1 else "fold"),
            *([f"labels left out of the mean: {', '.join(left_out)}"] if left_out else []),
        ),
    )


def build_thresholds(
    scored: OutOfFoldScores,
    config: Config,
    *,
    metric: Metric,
    labels: Sequence[str],
    folds: Sequence[int],
    rates: NDArray[np.float64],
    notes: Sequence[str],
) -> Thresholds:
    """The thresholds to submit with; `rates` (K,): see `Thresholds`."""
    platt = None
    if scored.calibration is not None:
        fitted = zip(labels, scored.calibration.slopes, scored.calibration.intercepts, strict=True)
        platt = {name: Platt(float(slope), float(intercept)) for name, slope, intercept in fitted}
    return Thresholds(
        policy=config.thresholds.policy,
        chosen=scored.policy,
        calibration=config.thresholds.calibration,
        platt=platt,
        rows=config.submission.rows,
        predict=PredictSettings.of(config),
        folds=tuple(folds),
        metric=metric.name,
        in_sample=finite(scored.in_sample.pooled.value),
        cross_fitted=finite(scored.cross_fitted.pooled.value),
        notes=tuple(notes),
        values=dict(zip(labels, scored.thresholds.tolist(), strict=True)),
        rates=dict(zip(labels, rates.tolist(), strict=True)),
    )


def _about_parts(scored: OutOfFoldScores, part: str) -> list[str]:
    """Notes on parts whose policy, or whose mean score, differs from that of all rows; `part` is the word for one."""
    notes = []
    if set(scored.fold_policies) | {scored.policy} != {scored.policy}:
        others = ", ".join(
            f"{name} without {part} {number}"
            for number, name in zip(scored.fold_ids, scored.fold_policies, strict=True)
        )
        notes.append(f"thresholds are {scored.policy}; the cross-fitted score chose {others}")
    if scored.cross_fitted.disagrees:
        notes.append(
            f"the mean of the {part}s lies outside the interval of the pooled score: {part}s differ in size, in "
            "difficulty or in the scale of their scores, or the metric is no mean over rows"
        )
    return notes


def _folded(score: FoldedScore) -> FoldedScores:
    return FoldedScores(
        pooled=finite(score.pooled.value),
        mean=finite(score.mean),
        interval=(finite(score.interval.low), finite(score.interval.high)),
        folds=tuple(map(finite, score.folds)),
    )


def _outdated(plan: Plan, run: RunFolder, folds: Sequence[int]) -> list[str]:
    """A sentence on the folds that were finished with other settings and are not scored now."""
    others = [fold for fold in plan.fold_numbers if fold not in folds and run.fold(fold).done.exists()]
    if not others:
        return []
    return [
        f"left out of these scores: {'fold' if len(others) == 1 else 'folds'} {listing(others)}, finished with other "
        "train.seeds or predict settings; going back to those scores all again without training"
    ]


def _out_of_fold_probabilities(
    plan: Plan, run: RunFolder, folds: Sequence[int], validated: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Probabilities (V, K) of the `validated` rows of the table, those of `folds`, joined by id, label by label."""
    labels = list(plan.table.labels)
    probabilities = np.empty((len(validated), len(labels)), order="F")
    for fold in folds:
        rows = rows_of(plan.folds, fold).validation
        ids = [plan.table.ids[row] for row in rows]
        found = read_predictions(run.fold(fold).oof, []).index
        if sorted(found) != sorted(ids):
            raise RunError(
                f"{run.fold(fold).oof} does not hold the validation rows of fold {fold}",
                remedy="the run folder was changed by hand: start with --fresh",
            )
        order, places = found.get_indexer(pd.Index(ids)), np.searchsorted(validated, rows)
        for block in blocks(len(labels), _BLOCK_LABELS):
            logits = read_predictions(run.fold(fold).oof, labels[block])
            for column, label in enumerate(labels[block], start=block.start):
                probabilities[places, column] = sigmoid(logits[label].to_numpy()[order])
    return probabilities
