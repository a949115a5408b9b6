from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from pipeline.metrics.registry import METRICS
from pipeline.metrics.targets import Floats
from pipeline.thresholds.calibration import FEWEST_POSITIVES, fit_platt


def squeezed(rows: int = 3000) -> tuple[Floats, Floats]:
    """Targets drawn from true probabilities, and those probabilities squeezed and shifted in logits."""
    rng = np.random.default_rng(0)
    logits = 2.0 * rng.normal(size=(rows, 2)) - [0.0, 1.5]
    targets = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float64)
    return targets, 1 / (1 + np.exp(-(0.4 * logits + 1.0)))


def test_calibration_undoes_a_squeeze_and_a_shift() -> None:
    targets, probabilities = squeezed()
    fitted = fit_platt(targets, probabilities)
    np.testing.assert_allclose(fitted.slopes, 1 / 0.4, rtol=0.1)
    np.testing.assert_allclose(fitted.intercepts, -1 / 0.4, rtol=0.1)
    loss = METRICS["log_loss"].function
    assert loss(targets, fitted.apply(probabilities)).value < loss(targets, probabilities).value - 0.1


def test_the_fit_equals_scikit_learns() -> None:
    targets, probabilities = squeezed()
    fitted = fit_platt(targets, probabilities)
    logits = np.log(probabilities / (1 - probabilities))
    for label in range(2):
        reference = LogisticRegression(C=1e9, tol=1e-10).fit(logits[:, [label]], targets[:, label])
        assert fitted.slopes[label] == pytest.approx(float(reference.coef_[0, 0]), rel=0.01)  # the smoothing differs
        assert fitted.intercepts[label] == pytest.approx(float(reference.intercept_[0]), abs=0.01)


def test_rare_labels_get_the_fit_of_all_cells() -> None:
    targets, probabilities = squeezed()
    targets = np.concatenate([targets, np.zeros((3000, 2))], axis=1)
    targets[: FEWEST_POSITIVES - 1, 2] = 1
    table = np.concatenate([probabilities, probabilities], axis=1)
    fitted = fit_platt(targets, table)
    together = fit_platt(targets.reshape(-1, 1), table.reshape(-1, 1))
    np.testing.assert_allclose(fitted.slopes[2:], together.slopes[0], rtol=1e-6)
    np.testing.assert_allclose(fitted.intercepts[2:], together.intercepts[0], rtol=1e-6)


def test_unknown_cells_are_ignored() -> None:
    targets, probabilities = squeezed()
    targets[:1000] = np.nan
    whole, known = fit_platt(targets, probabilities), fit_platt(targets[1000:], probabilities[1000:])
    np.testing.assert_allclose(whole.slopes, known.slopes, rtol=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_separable_and_reversed_classes_stay_finite_and_in_order(sign: float) -> None:
    targets = np.repeat([[0.0], [1.0]], 50, axis=0)
    probabilities = 0.5 + sign * 0.4 * (targets - 0.5)
    calibrated = fit_platt(targets, probabilities).apply(np.array([[0.0], [0.3], [0.7], [1.0]]))
    assert np.isfinite(calibrated).all()
    assert (np.diff(calibrated[:, 0]) > 0).all()
    if sign < 0:
        np.testing.assert_allclose(calibrated, 0.5, atol=0.02)
