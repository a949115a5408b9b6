"""Score a run's submission against the true answers, once they are known: `python -m pipeline.report.truth RUN CSV`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.commands import run_command
from pipeline.competition.labels import read_labels
from pipeline.competition.notes import tell_nobody
from pipeline.competition.submission import row_rules
from pipeline.competition.table import truths_of
from pipeline.config import CompetitionConfig
from pipeline.errors import RunError
from pipeline.evaluation.metrics import get_metric
from pipeline.files import read_json, read_predictions
from pipeline.inference.deciding import read_decider
from pipeline.report.console import make_console
from pipeline.runs import RunFolder


def true_score(run: RunFolder, truth: Path) -> dict[str, float]:
    """The metric of the run's test predictions, decided as they were submitted, and their mAP.

    Args:
        run: a run with a submission.
        truth: a CSV with the ids and the labels in the encoding of the training table.

    Raises:
        RunError: the run has no test predictions, or the truth is of other ids.
        CompetitionError: the truth cannot be read.
    """
    config = run.read_config()
    facts = read_json(run.thresholds)
    labels = tuple(facts["values"])
    predicted = read_predictions(run.test, list(labels))
    ids, targets = read_truth(config.competition, truth, labels)
    if set(ids) != set(predicted.index):
        raise RunError(
            f"{truth} and {run.test} do not hold the same ids",
            got=f"{len(ids)} ids in the truth, {len(predicted)} in the run",
            remedy="give the answers of this competition's test set",
        )
    probabilities = predicted.loc[ids, list(labels)].to_numpy(dtype=np.float64)
    metric = get_metric(config.competition.metric, labels)
    decider = read_decider(run, config, labels, row_rules(config.submission, config.competition, labels))
    decided = decider.decide if metric.takes == "decisions" else decider.calibrated
    judged = decided(probabilities)
    return {
        metric.name: metric.function(targets, judged).value,
        "map": get_metric("map").function(targets, probabilities).value,
    }


def read_truth(competition: CompetitionConfig, path: Path, labels: Sequence[str]) -> tuple[list[str], NDArray[Any]]:
    """The ids and truths (N, K) of a table in the training table's encoding, as `truths_of` gives them.

    Raises:
        CompetitionError: it cannot be read so, or holds other labels.
    """
    rows = read_labels(competition, path, key="the truth file", tell=tell_nobody, known=tuple(labels))
    return rows.frame[competition.id].tolist(), truths_of(rows.targets)


def main(arguments: argparse.Namespace) -> None:
    """Print the true scores beside what cross-validation promised."""
    run = RunFolder(arguments.run)
    found = true_score(run, arguments.truth)
    promised = read_json(run.scores)
    name = promised["metric"]
    notes = "".join(f"; {note}" for note in promised["notes"])
    make_console().print(
        f"true test {name} {found[name]:.4f} (cross-validation said {promised['cross_fitted']['pooled']:.4f} "
        f"cross-fitted, {promised['in_sample']['pooled']:.4f} in-sample); "
        f"true test mAP {found['map']:.4f} (said {promised['threshold_free']['map']:.4f}){notes}",
        markup=False,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m pipeline.report.truth", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run with a submission, for example runs/demo")
    parser.add_argument("truth", type=Path, metavar="CSV", help="the answers, in the training table's encoding")
    given = parser.parse_args()
    sys.exit(run_command(lambda: main(given), after_interrupt="nothing was written"))
