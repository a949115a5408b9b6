"""The fitted rule that turns probabilities of test rows into decisions."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.metrics.targets import Bits, Floats
from pipeline.thresholds.calibration import Calibration
from pipeline.thresholds.row_rules import RowRules
from pipeline.thresholds.transfer import Transfer, transferred


@dataclass(frozen=True, eq=False)
class DecisionRule:
    """Calibration, thresholds and row rules, in this order.

    Attributes:
        calibration: None leaves probabilities as they are.
        thresholds: (K,) for calibrated probabilities.
        out_of_fold: (N, K) the probabilities that both were fitted on, not calibrated.
        policy: the policy of the thresholds, see `OutOfFoldScores.policy`; those of `fixed` keep their values.
        transfer: see `transferred`.
        rules: the row rules.
    """

    calibration: Calibration | None
    thresholds: Floats
    out_of_fold: Floats
    policy: str
    transfer: Transfer
    rules: RowRules

    def calibrated(self, probabilities: Floats) -> Floats:
        """Calibrated probabilities (M, K), to which the thresholds apply."""
        return probabilities if self.calibration is None else self.calibration.apply(probabilities)

    def decide(self, probabilities: Floats) -> Bits:
        """Decisions (M, K) for the uncalibrated probabilities of all test rows, over which rates are taken."""
        test = self.calibrated(probabilities)
        how: Transfer = "value" if self.policy == "fixed" else self.transfer
        thresholds = transferred(how, self.thresholds, self.calibrated(self.out_of_fold), test)
        return self.rules.apply(test, thresholds)
