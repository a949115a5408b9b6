"""How a finished run decides test rows: read from its files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.config import Config
from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.decider import Decider
from pipeline.evaluation.rules import RowRules
from pipeline.runs import RunFolder, read_json, read_predictions


def read_decider(run: RunFolder, config: Config, labels: Sequence[str], rules: RowRules) -> Decider:
    """The decider that `thresholds.json` and `oof.parquet` of a scored run describe.

    Raises:
        RunError: a file is missing or damaged.
    """
    facts = read_json(run.thresholds)
    platt = facts["platt"]
    calibration = None
    if platt is not None:
        slopes, intercepts = ([platt[name][key] for name in labels] for key in ("slope", "intercept"))
        calibration = Calibration(np.array(slopes), np.array(intercepts))
    return Decider(
        calibration=calibration,
        thresholds=np.array([facts["values"][name] for name in labels]),
        out_of_fold=read_predictions(run.oof, list(labels))[list(labels)].to_numpy(dtype=np.float64),
        policy=facts["chosen"],
        transfer=config.thresholds.transfer,
        rules=rules,
    )
