"""Platt calibration: a slope and an intercept for each label, those of all labels together for a rare label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.metrics.targets import Bits, Floats, Targets, split_scores

FEWEST_POSITIVES = 20  # and negatives, for a fit of a label's own
_STEPS = 50
_CLIP = 1e-9  # smallest distance of a probability from 0 and 1, where its logit is infinite


@dataclass(frozen=True, eq=False)
class Calibration:
    """p = σ(slope · logit + intercept), both (K,); slopes are above 0, so each label's order of rows stays."""

    slopes: Floats
    intercepts: Floats

    def apply(self, probabilities: Floats) -> Floats:
        """Calibrated probabilities (N, K) of probabilities (N, K) in [0, 1]."""
        return _sigmoid(self.slopes * _logits(probabilities) + self.intercepts)


def fit_platt(targets: Targets, probabilities: Floats) -> Calibration:
    """Fits slope and intercept of each label by maximum likelihood (J. Platt, Probabilistic outputs for SVMs, 1999).

    Targets are smoothed as in the paper, to (positives + 1) / (positives + 2) and 1 / (negatives + 2), which keeps
    the fit finite where the scores separate a label's classes. A label with fewer than 20 known positives or
    negatives gets the slope and intercept fitted on the cells of all labels. A label whose best slope is not above
    0 is scored worse than by a constant; it gets the slope 1e-3, and so nearly a constant, its rate of positives.

    Args:
        targets: (N, K), see `split_targets`.
        probabilities: (N, K) in [0, 1].
    """
    bits, known, table = split_scores(targets, probabilities)
    logits = _logits(table)
    pooled = _fit(bits[known], logits[known]) if known.any() else (1.0, 0.0)
    fits = []
    for label in range(bits.shape[1]):
        rows = known[:, label]
        own = bits[rows, label]
        enough = min(int(own.sum()), own.size - int(own.sum())) >= FEWEST_POSITIVES
        fits.append(_fit(own, logits[rows, label]) if enough else pooled)
    slopes, intercepts = np.array(fits).T
    return Calibration(slopes, intercepts)


def _fit(bits: Bits, logits: Floats) -> tuple[float, float]:
    """Slope and intercept by Newton's method, with halved steps, on the smoothed log loss, which is convex."""
    positives = int(bits.sum())
    smoothed = np.where(bits == 1, (positives + 1) / (positives + 2), 1 / (bits.size - positives + 2))
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    weights = np.array([1.0, 0.0])
    loss = _loss(design @ weights, smoothed)
    for _ in range(_STEPS):
        p = _sigmoid(design @ weights)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, design.T @ (p - smoothed))
        for _ in range(_STEPS):
            moved = _loss(design @ (weights - step), smoothed)
            if moved <= loss:
                break
            step = step / 2
        gained, weights, loss = loss - moved, weights - step, min(loss, moved)
        if gained < 1e-12 * bits.size:
            break
    if weights[0] > 1e-3:
        return float(weights[0]), float(weights[1])
    rate = float(smoothed.mean())
    return 1e-3, float(np.log(rate / (1 - rate)))


def _loss(logits: Floats, targets: Floats) -> float:
    return float((np.logaddexp(0.0, logits) - targets * logits).sum())


def _logits(probabilities: Floats) -> Floats:
    p = np.clip(probabilities, _CLIP, 1.0 - _CLIP)
    return np.asarray(np.log(p) - np.log1p(-p))


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))
