"""What `scores.json` and `thresholds.json` say: plain dicts computed from arrays, without drawing anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.label_table import per_label_table
from pipeline.metrics.means import mean_over_labels
from pipeline.metrics.registry import Metric
from pipeline.thresholds.cross_fitting import FoldedScore, OutOfFoldScores


def score_facts(
    honest: OutOfFoldScores,
    *,
    metric: Metric,
    labels: Sequence[str],
    targets: NDArray[Any],
    probabilities: NDArray[np.float64],
    folds: Sequence[int],
    of_folds: Sequence[int],
    notes: Sequence[str],
) -> dict[str, Any]:
    """The content of `scores.json` for N validated rows, those of `folds` out of `of_folds`, and K labels.

    The per-label figures are those of the cross-fitted decisions. `threshold_free` holds scores that no
    threshold touches; `prevalence_map` is the mAP of a constant score per label, which is what knowing
    nothing about the images gives.
    """
    figures = per_label_table(targets, probabilities, honest.cross_fitted_decisions)
    left_out = [labels[index] for index in honest.cross_fitted.pooled.left_out]
    names = [*notes, *_told(honest), *([f"labels left out of the mean: {', '.join(left_out)}"] if left_out else [])]
    return {
        "metric": metric.name,
        "greater_is_better": metric.greater_is_better,
        "rows": len(targets),
        "folds": list(folds),
        "of_folds": list(of_folds),
        "in_sample": _folded(honest.in_sample),
        "cross_fitted": _folded(honest.cross_fitted),
        "fitted": honest.fitted,
        "policy": honest.policy,
        "threshold_free": {
            "map": _number(mean_over_labels(figures.average_precision).value),
            "prevalence_map": _number(mean_over_labels(figures.constant_precision).value),
            "auc_macro": _number(mean_over_labels(figures.auc).value),
        },
        "labels": {
            name: {
                "positives": int(figures.positives[index]),
                "average_precision": _number(figures.average_precision[index]),
                "auc": _number(figures.auc[index]),
                "threshold": _number(honest.thresholds[index]),
                "precision": _number(figures.precision[index]),
                "recall": _number(figures.recall[index]),
                "f1": _number(figures.f1[index]),
            }
            for index, name in enumerate(labels)
        },
        "notes": names,
    }


def threshold_facts(
    honest: OutOfFoldScores,
    *,
    metric: Metric,
    policy: str,
    calibration: str,
    rows: Mapping[str, Any],
    predict: Mapping[str, Any],
    folds: Sequence[int],
    labels: Sequence[str],
    rates: NDArray[np.float64],
    notes: Sequence[str],
) -> dict[str, Any]:
    """The content of `thresholds.json`: what to submit with, the settings that it fits, and how well it did.

    It is fitted on the rows of `folds`; `rates` (K,) are the shares of them that the labels were decided for,
    cross-fitted.
    """
    return {
        "policy": policy,
        "chosen": honest.policy,
        "calibration": calibration,
        "platt": _platt(honest, labels),
        "rows": dict(rows),
        "predict": dict(predict),
        "folds": list(folds),
        "metric": metric.name,
        "in_sample": _number(honest.in_sample.pooled.value),
        "cross_fitted": _number(honest.cross_fitted.pooled.value),
        "notes": list(notes),
        "values": {name: float(value) for name, value in zip(labels, honest.thresholds, strict=True)},
        "rates": {name: float(rate) for name, rate in zip(labels, rates, strict=True)},
    }


def _platt(honest: OutOfFoldScores, labels: Sequence[str]) -> dict[str, dict[str, float]] | None:
    if honest.calibration is None:
        return None
    fitted = zip(labels, honest.calibration.slopes, honest.calibration.intercepts, strict=True)
    return {name: {"slope": float(slope), "intercept": float(intercept)} for name, slope, intercept in fitted}


def _told(honest: OutOfFoldScores) -> list[str]:
    """What a person should know about how the scores came about."""
    told = []
    if set(honest.fold_policies) | {honest.policy} != {honest.policy}:
        others = ", ".join(
            f"{name} without fold {part}" for part, name in zip(honest.fold_ids, honest.fold_policies, strict=True)
        )
        told.append(f"thresholds are {honest.policy}; the cross-fitted score chose {others}")
    if honest.cross_fitted.disagrees:
        told.append(
            "the mean of the folds lies outside the interval of the pooled score: folds differ in size, in difficulty "
            "or in the scale of their scores, or the metric is no mean over rows"
        )
    return told


def _folded(score: FoldedScore) -> dict[str, Any]:
    return {
        "pooled": _number(score.pooled.value),
        "mean": _number(score.mean),
        "interval": [_number(score.interval.low), _number(score.interval.high)],
        "folds": [_number(value) for value in score.folds],
    }


def _number(value: float) -> float | None:
    """JSON has no NaN: a score that does not exist is null."""
    return float(value) if math.isfinite(value) else None
