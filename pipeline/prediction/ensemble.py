"""The average of an ensemble and its views; nothing else averages predictions. Pure numpy."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Average = Literal["probability", "logit"]
Floats = NDArray[np.float64]


def sigmoid(logits: NDArray[np.floating]) -> Floats:
    """1 / (1 + exp(-z)) in float64, without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -logits.astype(np.float64))))


def combine_logits(logits: NDArray[np.floating], *, average: Average) -> Floats:
    """Average M predictions: logits (M, ..., K) to logits (..., K) in float64.

    `probability` averages sigmoid(logits) and returns the logit of that mean, computed as
    log(mean sigmoid(z)) - log(mean sigmoid(-z)), which stays finite where a probability rounds to 0 or 1.
    `logit` averages the logits. A single prediction is returned unchanged.
    """
    predictions = logits.astype(np.float64)
    if len(predictions) == 1:
        return np.asarray(predictions[0])
    if average == "logit":
        return np.asarray(predictions.mean(axis=0))
    log_present = np.logaddexp.reduce(-np.logaddexp(0.0, -predictions), axis=0)
    log_absent = np.logaddexp.reduce(-np.logaddexp(0.0, predictions), axis=0)
    return np.asarray(log_present - log_absent)
