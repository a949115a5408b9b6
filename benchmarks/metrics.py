"""Our metrics beside scikit-learn's on one table of scores.

Run `python benchmarks/metrics.py` (10,000 x 80 cells; `--rows`, `--labels`, `--rounds`). The two take turns, so that
a busy machine slows both; read the ratios, which are medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import sklearn.metrics as reference
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pipeline.metrics.registry import get_metric

Pair = tuple[NDArray[np.uint8], NDArray[Any]]
Rival = Callable[[NDArray[np.uint8], NDArray[Any]], Any]
RIVALS: dict[str, Rival] = {
    "map": partial(reference.average_precision_score, average="macro"),
    "auc_macro": partial(reference.roc_auc_score, average="macro"),
    "lwlrap": lambda targets, scores: reference.label_ranking_average_precision_score(
        targets, scores, sample_weight=targets.sum(axis=1)
    ),
    "log_loss": lambda targets, scores: reference.log_loss(targets.ravel(), scores.ravel()),
    "f1_macro": partial(reference.f1_score, average="macro"),
    "f1_micro": partial(reference.f1_score, average="micro"),
    "f2_samples": partial(reference.fbeta_score, beta=2, average="samples", zero_division=0),
    "accuracy_subset": reference.accuracy_score,
}


def scored_table(rows: int, labels: int) -> Pair:
    """Targets with 1 to 20 % positives per label, each row with one at least, and probabilities that know them."""
    generator = np.random.default_rng(0)
    targets = generator.random((rows, labels)) < np.linspace(0.01, 0.2, labels)
    targets[np.arange(rows), generator.integers(0, labels, rows)] = True
    logits = 2.0 * targets + generator.normal(size=(rows, labels)) - 2.0
    return targets.astype(np.uint8), 1.0 / (1.0 + np.exp(-logits))


def milliseconds(function: Callable[..., Any], table: Pair) -> tuple[float, float]:
    """Wall time of one call, and its value."""
    begin = time.perf_counter()
    result = function(*table)
    return 1000 * (time.perf_counter() - begin), float(getattr(result, "value", result))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--labels", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    targets, probabilities = scored_table(options.rows, options.labels)
    drawn = Table(title=f"{options.rows} x {options.labels} cells, medians of {options.rounds} rounds in turn")
    for column in ("metric", "ours ms", "scikit-learn ms", "scikit-learn / ours", "difference"):
        drawn.add_column(column, justify="left" if column == "metric" else "right")
    for name, rival in RIVALS.items():
        metric = get_metric(name)
        values = probabilities if metric.takes == "probabilities" else (probabilities > 0.5).astype(np.uint8)
        ours, theirs, difference = [], [], 0.0
        for turn in range(options.rounds + 1):
            (mine, value), (other, expected) = (
                milliseconds(function, (targets, values)) for function in (metric.function, rival)
            )
            difference = max(difference, abs(value - expected))
            if turn >= 1:  # the first turn warms up
                ours.append(mine)
                theirs.append(other)
        ratio = statistics.median(other / mine for mine, other in zip(ours, theirs, strict=True))
        drawn.add_row(
            name,
            f"{statistics.median(ours):.1f}",
            f"{statistics.median(theirs):.1f}",
            f"{ratio:.2f}",
            f"{difference:.0e}",
        )
    Console(width=100).print(drawn)


if __name__ == "__main__":
    main()
