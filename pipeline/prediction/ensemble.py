"""The one place that says what an ensemble or a set of views averages. Pure numpy."""

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
    """The logits of the average of M predictions, (M, ..., K) to (..., K) in float64.

    `probability` averages sigmoid(logits) and gives the logit of that mean, as
    log(mean sigmoid(z)) - log(mean sigmoid(-z)), which stays finite where a probability rounds to 0 or 1.
    `logit` averages the logits themselves. One prediction comes back as it is.
    """
    members = logits.astype(np.float64)
    if len(members) == 1:
        return np.asarray(members[0])
    if average == "logit":
        return np.asarray(members.mean(axis=0))
    log_present = np.logaddexp.reduce(-np.logaddexp(0.0, -members), axis=0)
    log_absent = np.logaddexp.reduce(-np.logaddexp(0.0, members), axis=0)
    return np.asarray(log_present - log_absent)
