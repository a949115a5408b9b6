"""Query2Label, grouped queries and average pooling on digit scenes: out-of-fold mAP over three seeds, with intervals.

Run `python benchmarks/heads.py` (nine cross-validations of three folds, about 65 minutes of one core; a run that is
finished is not trained again). All get about the same processor time: pooling is cheaper by the step and trains
longer. Intervals: the middle 95 % of 1,000 resamples of the sheets, whose digits one group of people wrote, of the
mean over the seeds; they are conditional on the trained models.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pipeline.competition.table import TrainTable, read_train
from pipeline.config import load_config
from pipeline.events import ignore
from pipeline.files import read_json, read_predictions
from pipeline.metrics.bootstrap import interval, resample
from pipeline.metrics.registry import get_metric
from pipeline.run.folder import RunFolder

CONFIG = Path("configs/demo.yaml")
HEADS = {
    "q2l": ("Query2Label, a query per label", ["train.epochs=30"]),
    "grouped": ("two labels share a query", ["train.epochs=30", "model.query_groups=5"]),
    "gap": ("average pooling", ["train.epochs=34", "model.head=gap"]),
}


def train(head: str, seed: int) -> RunFolder:
    """The finished run of this head and seed, trained if it is not there."""
    run = RunFolder(Path("runs") / f"{head}-{seed}")
    if not run.scores.exists():
        overrides = [*HEADS[head][1], f"train.seed={seed}"]
        subprocess.run([sys.executable, "run_cv.py", str(CONFIG), *overrides, "--run", run.path.name], check=True)
    return run


def probabilities(run: RunFolder, table: TrainTable) -> NDArray[np.float64]:
    """Out-of-fold probabilities (N, K) in the table's order, joined by id."""
    labels = list(table.labels)
    found: NDArray[np.float64] = read_predictions(run.oof, labels).loc[list(table.ids), labels].to_numpy(np.float64)
    return found


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    runs = {head: [train(head, seed) for seed in range(options.seeds)] for head in HEADS}
    table = read_train(load_config(CONFIG).competition, ignore)
    metric = get_metric("map")
    _, sheets = np.unique(np.array(table.groups), return_inverse=True)
    resampled = {
        head: resample(metric, table.truths, [probabilities(run, table) for run in found], groups=sheets).mean(axis=0)
        for head, found in runs.items()
    }
    drawn = Table(title="out-of-fold mAP on digit scenes, mean over the seeds", title_justify="left")
    for column in ("", "each seed", "mean", "95 % interval", "ahead of pooling", "macro-F1, cross-fitted"):
        drawn.add_column(column)
    for head, found in runs.items():
        scores = [read_json(run.scores) for run in found]
        maps = [each["threshold_free"]["map"] for each in scores]
        ahead = interval(resampled[head] - resampled["gap"])
        drawn.add_row(
            HEADS[head][0],
            "  ".join(f"{value:.3f}" for value in maps),
            f"{np.mean(maps):.3f}",
            "{:.3f} to {:.3f}".format(*interval(resampled[head])),
            "" if head == "gap" else "{:.3f} to {:.3f}".format(*ahead),
            f"{np.mean([each['cross_fitted']['pooled'] for each in scores]):.3f}",
        )
    Console(width=120).print(drawn)


if __name__ == "__main__":
    main()
