"""From the out-of-fold logits of finished folds to thresholds and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import FoldError, RunError, listing
from pipeline.evaluation.honest import EPOCH_MARK, score_out_of_fold
from pipeline.evaluation.transfer import rates
from pipeline.files import read_predictions, write_json, write_parquet
from pipeline.folds import cross_fitting_parts, folds_mark, group_numbers
from pipeline.inference.ensemble import sigmoid
from pipeline.inference.out_of_fold import predict_settings, rows_of
from pipeline.plan import Plan
from pipeline.report.facts import score_facts, threshold_facts
from pipeline.runs import RunFolder


def score_run(plan: Plan, run: RunFolder, folds: Sequence[int]) -> dict[str, Any] | None:
    """Join the out-of-fold logits by id, fit and cross-fit thresholds; writes and gives the run's scores.

    Args:
        plan: what the run is made of.
        run: its folder.
        folds: the finished folds that are scored, ascending; where they are not all, the scores say so.

    Returns:
        The content of `scores.json`; None where the one finished fold is too small to be scored alone.

    Raises:
        RunError: a fold's predictions are missing, or are not of its validation rows.
    """
    config, labels = plan.config, list(plan.table.labels)
    validated = np.flatnonzero(np.isin(plan.folds, folds))
    probabilities = sigmoid(_out_of_fold_logits(plan, run, folds, validated))
    targets = plan.table.truths[validated]
    groups = None if plan.table.groups is None else [plan.table.groups[row] for row in validated]
    unfinished = len(folds) < len(plan.fold_numbers)
    try:
        parts, notes = cross_fitting_parts(
            [plan.table.ids[row] for row in validated],
            plan.folds[validated],
            plan.table.positives[validated],
            labels,
            seed=config.folds.seed,
            groups=groups,
        )
    except FoldError:
        if unfinished:
            return None
        raise
    mark = folds_mark(folds, plan.fold_numbers)
    notes = [
        *([EPOCH_MARK] if config.train.select == "best" else []),
        *([mark] if mark else []),
        *_outdated(plan, run, folds),
        *notes,
    ]
    honest = score_out_of_fold(
        plan.metric,
        targets,
        probabilities,
        parts,
        policy=config.thresholds.policy,
        rules=plan.rules,
        calibration=config.thresholds.calibration,
        groups=group_numbers(groups),
    )
    scores = score_facts(
        honest,
        metric=plan.metric,
        labels=labels,
        targets=targets,
        probabilities=probabilities,
        folds=folds,
        of_folds=plan.fold_numbers,
        notes=notes,
    )
    table = pd.DataFrame(probabilities, columns=labels)
    table.insert(0, "id", [plan.table.ids[row] for row in validated])
    table.insert(1, "fold", plan.folds[validated])
    write_parquet(run.oof, table)
    facts = threshold_facts(
        honest,
        metric=plan.metric,
        policy=config.thresholds.policy,
        calibration=config.thresholds.calibration,
        rows=config.submission.rows,
        predict=predict_settings(config),
        folds=folds,
        labels=labels,
        rates=rates(honest.cross_fitted_decisions, ~np.isnan(targets)),
        notes=notes,
    )
    write_json(run.thresholds, facts)
    write_json(run.scores, scores)
    return scores


def _outdated(plan: Plan, run: RunFolder, folds: Sequence[int]) -> list[str]:
    """A sentence on the folds that were finished with other settings and are not scored now."""
    others = [fold for fold in plan.fold_numbers if fold not in folds and run.fold(fold).done.exists()]
    if not others:
        return []
    return [
        f"left out of these scores: {'fold' if len(others) == 1 else 'folds'} {listing(others)}, finished with other "
        "train.seeds or predict settings; going back to those scores all again without training"
    ]


def _out_of_fold_logits(
    plan: Plan, run: RunFolder, folds: Sequence[int], validated: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Logits (V, K) of the `validated` rows of the table, those of `folds`, joined by id."""
    labels = list(plan.table.labels)
    logits = np.empty((len(validated), len(labels)))
    for fold in folds:
        rows = rows_of(plan.folds, fold).validation
        frame = read_predictions(run.fold(fold).oof, labels)
        ids = [plan.table.ids[row] for row in rows]
        if sorted(frame.index) != sorted(ids):
            raise RunError(
                f"{run.fold(fold).oof} does not hold the validation rows of fold {fold}",
                remedy="the run folder was changed by hand: start with --fresh",
            )
        logits[np.searchsorted(validated, rows)] = frame.loc[ids, labels].to_numpy()
    return logits
