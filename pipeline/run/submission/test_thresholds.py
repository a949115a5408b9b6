"""How finished runs decide test rows: read from the files of one run, fitted anew to the mean of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.competition.table import read_train
from pipeline.config import Config
from pipeline.events import ignore
from pipeline.files import read_json, read_predictions
from pipeline.metrics.registry import get_metric
from pipeline.run.folder import RunFolder
from pipeline.run.submission.joined_out_of_fold import join_out_of_fold
from pipeline.run.submission.submission_record import promised_by
from pipeline.run.trained_run import TrainedRun
from pipeline.thresholds.calibration import Calibration
from pipeline.thresholds.cross_fitting import BEST_EPOCH_NOTE, score_out_of_fold
from pipeline.thresholds.decision_rule import DecisionRule
from pipeline.thresholds.row_rules import RowRules
from pipeline.thresholds.transfer import rates


def read_decision_rule(run: RunFolder, config: Config, labels: Sequence[str], rules: RowRules) -> DecisionRule:
    """The decider that `thresholds.json` and `oof.parquet` of a scored run describe.

    Raises:
        RunError: a file is missing or damaged.
    """
    facts = read_json(run.thresholds)
    platt = facts["platt"]
    calibration = None
    if platt is not None:
        slopes, intercepts = ([platt[name][key] for name in labels] for key in ("slope", "intercept"))
        calibration = Calibration(np.array(slopes), np.array(intercepts))
    return DecisionRule(
        calibration=calibration,
        thresholds=np.array([facts["values"][name] for name in labels]),
        out_of_fold=read_predictions(run.oof, list(labels))[list(labels)].to_numpy(dtype=np.float64),
        policy=facts["chosen"],
        transfer=config.thresholds.transfer,
        rules=rules,
    )


def choose_decision_rule(runs: Sequence[TrainedRun], rules: RowRules) -> tuple[DecisionRule, dict[str, Any], list[str]]:
    """What to decide by, its scores and out-of-fold rates, and what to say about them.

    One run decides as its files say; for several, thresholds are fitted to the mean of their out-of-fold
    probabilities, by the first run's settings.

    Raises:
        RunError: a file is missing or damaged, or the runs do not validate the same rows.
    """
    first = runs[0]
    if len(runs) == 1:
        facts = read_json(first.run.thresholds)
        promised = {**facts, **promised_by(first.run, facts)}
        return read_decision_rule(first.run, first.config, first.labels, rules), promised, []
    labels = list(first.labels)
    metric = get_metric(first.config.competition.metric, labels)
    rows = join_out_of_fold([run.run for run in runs], read_train(first.config.competition, ignore), labels)
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
    honest = score_out_of_fold(
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
    decided = rates(honest.cross_fitted_decisions, ~np.isnan(rows.targets))
    facts = {
        "in_sample": honest.in_sample.pooled.value,
        "cross_fitted": honest.cross_fitted.pooled.value,
        "map": get_metric("map").function(rows.targets, probabilities).value,
        "notes": [*notes, *(f"{run.run.path}: {BEST_EPOCH_NOTE}" for run in runs if run.config.train.select == "best")],
        "rates": dict(zip(labels, decided.tolist(), strict=True)),
    }
    decider = DecisionRule(
        honest.calibration, honest.thresholds, probabilities, honest.policy, settings.transfer, rules
    )
    return decider, facts, notes
