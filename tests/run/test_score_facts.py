"""What scores.json says equals the definitions, and never holds a NaN."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from pipeline.metrics.registry import get_metric
from pipeline.run.score_facts import score_facts, threshold_facts
from pipeline.thresholds.cross_fitting import score_out_of_fold

LABELS = ["a", "b", "never"]


def _facts() -> tuple[dict, dict, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    generator = np.random.default_rng(0)
    targets = (generator.random((60, 3)) < [0.5, 0.2, 0.0]).astype(np.uint8)
    probabilities = np.clip(0.3 * targets + generator.random((60, 3)) * 0.7, 0, 1)
    metric = get_metric("f1_macro")
    honest = score_out_of_fold(metric, targets, probabilities, np.arange(60) % 3, policy="global")
    scores = score_facts(
        honest,
        metric=metric,
        labels=LABELS,
        targets=targets,
        probabilities=probabilities,
        folds=[0, 1, 2],
        of_folds=[0, 1, 2],
        notes=["mark"],
    )
    thresholds = threshold_facts(
        honest,
        metric=metric,
        policy="global",
        calibration="none",
        rows={"empty": "none"},
        predict={"tta": ["identity"], "average": "probability"},
        folds=[0, 1, 2],
        labels=LABELS,
        rates=np.array([0.5, 0.2, 0.0]),
        notes=[],
    )
    return scores, thresholds, targets, probabilities


def test_the_figures_equal_scikit_learn_and_left_out_labels_are_named() -> None:
    scores, thresholds, targets, probabilities = _facts()
    cut = np.array(list(thresholds["values"].values()))
    expected = f1_score(targets[:, :2], (probabilities >= cut)[:, :2], average="macro")
    assert scores["in_sample"]["pooled"] == pytest.approx(expected)
    assert thresholds["in_sample"] == scores["in_sample"]["pooled"]
    assert scores["threshold_free"]["map"] == pytest.approx(
        average_precision_score(targets[:, :2], probabilities[:, :2], average="macro")
    )
    assert scores["threshold_free"]["prevalence_map"] == pytest.approx(targets[:, :2].mean())
    assert scores["labels"]["never"]["average_precision"] is None
    assert scores["notes"] == ["mark", "labels left out of the mean: never"]
    assert len(scores["cross_fitted"]["folds"]) == 3


def test_the_facts_are_json_without_nan() -> None:
    scores, thresholds, _, _ = _facts()
    for facts in (scores, thresholds):
        again = json.loads(json.dumps(facts, allow_nan=False))
        assert again == facts
    assert math.isfinite(scores["cross_fitted"]["mean"])
