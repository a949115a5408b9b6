"""Everything that turns the probabilities of new rows into decisions, once it is fitted."""

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
        policy: what the thresholds came from, as `OutOfFoldScores.policy`; `fixed` ones are not transferred.
        transfer: what stays from out-of-fold to test: the threshold's value or its rate.
        rules: for rows.
    """

    calibration: Calibration | None
    thresholds: Floats
    out_of_fold: Floats
    policy: str
    transfer: Transfer
    rules: RowRules

    def calibrated(self, probabilities: Floats) -> Floats:
        """Probabilities (M, K) as the thresholds want them, and as a scorer of probabilities does."""
        return probabilities if self.calibration is None else self.calibration.apply(probabilities)

    def decide(self, probabilities: Floats) -> Bits:
        """Decisions (M, K) for all test rows, not calibrated: the rate of a threshold is that over all of them."""
        test = self.calibrated(probabilities)
        how: Transfer = "value" if self.policy == "fixed" else self.transfer
        thresholds = transferred(how, self.thresholds, self.calibrated(self.out_of_fold), test)
        return self.rules.apply(test, thresholds)
