from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.evaluation.arrays import Bits, Floats, Ints
from pipeline.evaluation.choice import PER_STRENGTH, Fits
from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.problem import pose

PARTS = frozenset(range(4))


def drawn(shift: float, rows: int = 2000) -> tuple[Bits, Floats, Ints]:
    """Three labels whose scores are calibrated but for a shift of their logits, another for each label."""
    rng = np.random.default_rng(0)
    logits = 2.0 * rng.normal(size=(rows, 3))
    targets = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
    return targets, 1 / (1 + np.exp(-(logits + shift * np.array([-1, 0, 1])))), np.arange(rows) % 4


def fits(shift: float, metric: str = "accuracy_cells") -> Fits:
    targets, probabilities, parts = drawn(shift)
    return Fits(pose(METRICS[metric], targets, probabilities), parts, platt=False)


def test_auto_stays_with_the_simplest_where_nothing_is_to_be_gained() -> None:
    assert fits(0.0).thresholds("auto", PARTS)[0] == "fixed"


def test_auto_takes_thresholds_by_label_where_labels_differ() -> None:
    name, thresholds = fits(3.0).thresholds("auto", PARTS)
    assert name in {"prevalence", "per_label", *PER_STRENGTH}
    assert thresholds[0] < 0.3 < 0.7 < thresholds[2]


@pytest.mark.parametrize("policy", ["auto", "shrunk"])
def test_the_choice_does_not_look_at_a_part_left_out(policy: str) -> None:
    targets, probabilities, parts = drawn(1.0)
    changed = np.where(parts[:, None] == 3, 1 - targets, targets).astype(np.uint8)
    others = PARTS - {3}
    found = [
        Fits(pose(METRICS["f1_macro"], table, probabilities), parts, platt=True).thresholds(policy, others)
        for table in (targets, changed)
    ]
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_one_part_alone_is_shrunk() -> None:
    assert fits(1.0).thresholds("auto", frozenset({2}))[0] == "shrunk 30"


def test_the_tuner_starts_from_the_thresholds_by_label() -> None:
    targets, probabilities, parts = drawn(1.0)
    problem = pose(METRICS["f1_samples"], targets, probabilities)
    seen = []

    def tuner(start: Floats, judge: object) -> Floats:
        assert callable(judge)
        seen.append(float(judge(start)))
        return start / 2

    tuned = Fits(problem, parts, platt=False, tuner=tuner)
    start = tuned.thresholds("per_label", PARTS)[1]
    np.testing.assert_array_equal(tuned.thresholds("optuna", PARTS)[1], start / 2)
    assert seen == [pytest.approx(np.mean([problem.of_rows(parts == part).value(start) for part in range(4)]))]
    with pytest.raises(ConfigError, match="no tuner"):
        fits(1.0).thresholds("optuna", PARTS)
