"""Records: equal to their definitions, the same after a round trip, and refused where a file is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from pipeline.config import Config
from pipeline.errors import RunError
from pipeline.files import read_json, write_json
from pipeline.metrics.label_table import per_label_table
from pipeline.metrics.registry import get_metric
from pipeline.run.records import DataDigest, FoldDone, PredictSettings, Record, Scores, SubmissionRecord, Thresholds
from pipeline.run.score import build_scores, build_thresholds
from pipeline.thresholds.cross_fitting import score_out_of_fold

LABELS = ["a", "b", "never"]
GENERATOR = np.random.default_rng(0)
TARGETS = (GENERATOR.random((60, 3)) < [0.5, 0.2, 0.0]).astype(np.uint8)
PROBABILITIES = np.clip(0.3 * TARGETS + GENERATOR.random((60, 3)) * 0.7, 0, 1)


def scores_and_thresholds(calibration: Any = "none") -> tuple[Scores, Thresholds]:
    metric, folds = get_metric("f1_macro"), [0, 1, 2]
    parts = np.arange(60) % 3
    fitted = score_out_of_fold(metric, TARGETS, PROBABILITIES, parts, policy="global", calibration=calibration)
    figures = per_label_table(TARGETS, PROBABILITIES, fitted.cross_fitted_decisions)
    rates = np.array([0.5, 0.2, 0.0])
    return (
        build_scores(fitted, figures, metric=metric, labels=LABELS, folds=folds, of_folds=folds, notes=["mark"]),
        build_thresholds(fitted, Config(), metric=metric, labels=LABELS, folds=folds, rates=rates, notes=[]),
    )


SETTINGS = PredictSettings(("identity",), "probability", 1)
RECORDS: dict[str, Record] = {
    "scores": scores_and_thresholds()[0],
    "thresholds": scores_and_thresholds()[1],
    "calibrated thresholds": scores_and_thresholds("platt")[1],
    "done": FoldDone(3, SETTINGS),
    "submission": SubmissionRecord(("runs/a",), ((0, 1),), ("a", "b"), "map", None, 0.5, 0.25, ("a note",)),
    "data": DataDigest(("a", "b"), "0123"),
}


def test_the_scores_equal_scikit_learn_and_name_the_labels_that_are_left_out() -> None:
    scores, thresholds = scores_and_thresholds()
    decided = np.array(list(thresholds.values.values())) <= PROBABILITIES
    assert scores.in_sample.pooled == pytest.approx(f1_score(TARGETS[:, :2], decided[:, :2], average="macro"))
    assert thresholds.in_sample == scores.in_sample.pooled
    expected = average_precision_score(TARGETS[:, :2], PROBABILITIES[:, :2], average="macro")
    assert scores.threshold_free.map == pytest.approx(expected)
    assert scores.threshold_free.prevalence_map == pytest.approx(TARGETS[:, :2].mean())
    assert scores.labels["never"].average_precision is None
    assert scores.notes == ("mark", "labels left out of the mean: never")
    assert len(scores.cross_fitted.folds) == 3


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_loaded_as_it_was_saved(name: str, tmp_path: Path) -> None:
    record, path = RECORDS[name], tmp_path / "record.json"
    record.save(path)
    assert type(record).load(path) == record


DAMAGES: list[tuple[str, str, Any]] = [
    ("thresholds", "values", {"a": None, "b": 0.1, "never": 0.1}),
    ("thresholds", "values", {"a": "0.5", "b": 0.1, "never": 0.1}),
    ("thresholds", "values", {"a": 0.1, "b": 0.1, "other": 0.1}),
    ("thresholds", "rates", {"a": 0.1}),
    ("thresholds", "folds", [0.5]),
    ("calibrated thresholds", "platt", {"a": {"slope": 1.0}}),
    ("scores", "greater_is_better", "yes"),
    ("scores", "cross_fitted", {"pooled": 0.1, "mean": 0.1, "interval": [0.0], "folds": []}),
    ("scores", "labels", {"a": {"positives": True}}),
    ("done", "predict", {"tta": "identity", "average": "probability", "seeds": 1}),
    ("submission", "folds", []),
    ("data", "labels", [1, 2]),
]


@pytest.mark.parametrize(("name", "key", "value"), DAMAGES)
def test_a_file_of_the_wrong_content_is_refused_by_name(name: str, key: str, value: Any, tmp_path: Path) -> None:
    path, kind = tmp_path / "record.json", type(RECORDS[name])
    RECORDS[name].save(path)
    whole = read_json(path)
    write_json(path, {**whole, key: value})
    with pytest.raises(RunError, match=rf"record\.json does not hold(.|\n)*{key}(.|\n)*remedy: "):
        kind.load(path)
    write_json(path, {other: whole[other] for other in whole if other != key})
    with pytest.raises(RunError, match=rf"expected: the key {key}\n  got:      no such key"):
        kind.load(path)
