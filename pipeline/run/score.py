"""From the out-of-fold logits of finished folds to thresholds and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.competition.folds import cross_fitting_parts, folds_mark, group_numbers
from pipeline.competition.folds.rows import rows_of
from pipeline.config.schema import predict_settings
from pipeline.errors import FoldError, RunError, listing
from pipeline.files import read_predictions, write_json, write_parquet
from pipeline.metrics.targets import blocks, by_label, split_targets
from pipeline.prediction.ensemble import sigmoid
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from pipeline.run.score_facts import score_facts, threshold_facts
from pipeline.thresholds.cross_fitting import BEST_EPOCH_NOTE, score_out_of_fold
from pipeline.thresholds.transfer import rates

_BLOCK_LABELS = 50  # that are read at once


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
    probabilities = _out_of_fold_probabilities(plan, run, folds, validated)
    targets = by_label(plan.table.truths[validated])
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
        *([BEST_EPOCH_NOTE] if config.train.select == "best" else []),
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
    table = pd.DataFrame(probabilities, columns=labels, copy=False)
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
        rates=rates(honest.cross_fitted_decisions, split_targets(targets)[1]),
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
