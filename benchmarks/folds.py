"""The bare iterative-stratification library beside `pipeline.competition.folds`: seconds, and how even the folds are.

Run `python benchmarks/folds.py`, with `--quick` for a tenth of the rows. Times are medians of runs in turn.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pipeline.competition.folds import FEWEST_PER_FOLD, fold_table, stratified_folds

COUNT = 5
Targets = NDArray[np.bool_]


def sparse_labels(rows: int) -> Targets:
    """(rows, 80): the k-th label in 45 % / k of the images, correlated; images without a label are left out."""
    rng = np.random.default_rng(0)
    shares = 0.45 / np.arange(1, 81)
    shift = 0.5 * rng.normal(size=(rows, 4)) @ rng.normal(size=(4, 80)) - 0.5
    targets: Targets = rng.random((rows, 80)) < (shares * np.exp(shift)).clip(0, 0.95)
    return targets[targets.any(axis=1)]


def dense_labels(rows: int) -> Targets:
    """(rows, 40): attributes that 5 to 60 % of the images have, correlated."""
    rng = np.random.default_rng(0)
    shares = rng.uniform(0.05, 0.6, 40)
    log_odds = np.log(shares / (1 - shares)) + 0.5 * rng.normal(size=(rows, 6)) @ rng.normal(size=(6, 40))
    targets: Targets = rng.random((rows, 40)) < 1 / (1 + np.exp(-log_odds))
    return targets


def attributes(rows: int) -> Targets:
    """(rows, 1103): 3.2 of many rare labels per image."""
    shares = 1 / np.arange(1, 1104)
    targets: Targets = np.random.default_rng(0).random((rows, 1103)) < (3.2 * shares / shares.sum()).clip(0, 0.9)
    return targets


def patients(count: int) -> tuple[Targets, NDArray[np.int64]]:
    """(rows, 11) and each row's patient: 1 to 172 images of one, near 9 on average, which share much."""
    rng = np.random.default_rng(0)
    sizes = np.clip(np.round(rng.lognormal(1.3, 1.35, count)), 1, 172).astype(np.int64)
    patient = np.repeat(np.arange(count), sizes)
    shares = np.geomspace(0.003, 0.6, 11)
    log_odds = 1.25 * np.log(shares / (1 - shares)) + rng.normal(0, 1.3, (count, 11))
    targets: Targets = rng.random((len(patient), 11)) < 1 / (1 + np.exp(-log_odds[patient]))
    return targets, patient


def bare(targets: Targets) -> NDArray[np.int64]:
    """The library alone."""
    folds = np.empty(len(targets), dtype=np.int64)
    splitter = MultilabelStratifiedKFold(n_splits=COUNT, shuffle=True, random_state=0)
    for fold, (_, validation) in enumerate(splitter.split(targets, targets)):
        folds[validation] = fold
    return folds


def ours(targets: Targets, ids: list[str], groups: list[str] | None) -> NDArray[np.int64]:
    """`stratified_folds` on the rows."""
    labels = [f"{label:03d}" for label in range(targets.shape[1])]
    return stratified_folds(ids, targets, labels, count=COUNT, seed=0, groups=groups)


def timed(make: Callable[..., NDArray[np.int64]], *data: Any) -> tuple[float, NDArray[np.int64]]:
    """Seconds of one call, and its folds."""
    start = time.perf_counter()
    folds = make(*data)
    return time.perf_counter() - start, folds


def compare(table: Table, name: str, targets: Targets, patient: NDArray[np.int64] | None, runs: int) -> None:
    """Add the two rows of one data set to `table`. The library gets a group as one row with all its labels."""
    unit = np.arange(len(targets)) if patient is None else patient
    of_units = np.stack([np.bincount(unit, column) for column in targets.T], axis=1) > 0
    ids = [f"{row:06d}" for row in range(len(targets))]
    groups = None if patient is None else [f"{number:06d}" for number in patient]
    results: dict[str, list[tuple[float, NDArray[np.int64]]]] = {"library": [], "ours": []}
    for _ in range(runs):
        seconds, folds = timed(bare, of_units)
        results["library"].append((seconds, folds[unit]))
        results["ours"].append(timed(ours, targets, ids, groups))
    first = statistics.median(seconds for seconds, _ in results["library"])
    for who, found in results.items():
        seconds = statistics.median(seconds for seconds, _ in found)
        counted = fold_table(found[0][1], targets, [str(label) for label in range(targets.shape[1])])
        of_labels = "-" if counted.label_deviation is None else f"{counted.label_deviation:.2%}"
        table.add_row(
            name if who == "library" else "",
            who,
            f"{seconds:.2f}",
            f"{seconds / first:.2f}",
            of_labels,
            f"{counted.size_deviation:.2%}",
        )


def main() -> None:
    """Print the table, with the hardware it was made on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, in turn (default 3)")
    arguments = parser.parse_args()
    part = 10 if arguments.quick else 1

    table = Table(title=f"{COUNT} folds; deviations of labels with {FEWEST_PER_FOLD} per fold, and of sizes")
    for column in ("data", "folds by", "seconds", "ratio", "label", "size"):
        table.add_column(column, justify="left" if column in ("data", "folds by") else "right")
    for name, targets, patient in (
        ("80 sparse labels", sparse_labels(100_000 // part), None),
        ("40 dense labels", dense_labels(100_000 // part), None),
        ("1,103 rare labels", attributes(109_237 // part), None),
        ("11 labels, groups", *patients(3_255 // part)),
    ):
        shown = f"{name}: {len(targets):,} rows"
        compare(table, shown, targets, patient, arguments.runs)
    console = Console(width=110)
    console.print(table)
    console.print(f"{hardware()}; Python {platform.python_version()}, numpy {np.__version__}")


def hardware() -> str:
    """The processor's name and its number of cores."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
