"""Is the chosen blend at least as good as the equal mean on fresh rows, and is its cross-fitted score true?

Simulated members: logits of a common signal, with noise of their own and noise that they share, each on a scale of its
own. The truth is the score on 8,000 fresh rows; decisions are made by thresholds that were fitted out of fold.

    python benchmarks/blending.py                  # all three, with the table of docs/blending.md
    python benchmarks/blending.py --competitions 20
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from pipeline.metrics.bootstrap import resample
from pipeline.metrics.registry import METRICS, Metric
from pipeline.metrics.targets import Bits, Floats, Ints, blocks
from pipeline.prediction.blending import MEANS, Blend, fit_blend, member_logits
from pipeline.thresholds.cross_fitting import score_out_of_fold

METRIC_NAMES = ("auc_macro", "map", "f1_macro", "f2_samples", "log_loss")
FRESH, FOLDS = 8_000, 5


class Members(NamedTuple):
    """Rows that all members predict."""

    targets: Bits  # (N, K)
    tables: list[Floats]  # M tables (N, K)


class Outcome(NamedTuple):
    """Scores of one competition, greater is better."""

    metric: str
    gain: float  # of the chosen blend over the equal mean of probabilities, on fresh rows
    error: float  # standard error of that gain with as many rows as were validated
    bias: float  # cross-fitted score minus the true one
    in_sample_bias: float
    method: str


def shifted_twins(rng: np.random.Generator, rows: int, *, labels: int = 10, shift: float = 3.0) -> Members:
    """Two equally good members, one shifted in logits."""
    targets = (rng.random((rows, labels)) < 0.2).astype(np.uint8)
    logits = [1.6 * targets - 4.6 + rng.normal(size=targets.shape) + offset for offset in (0.0, shift)]
    return Members(targets, [expit(each) for each in logits])


def competition(seed: int) -> tuple[Members, Members, Metric]:
    """Rows with their out-of-fold predictions, fresh rows, and a metric."""
    rng = np.random.default_rng(seed)
    rows, labels, members = int(rng.integers(300, 2_000)), int(rng.integers(3, 9)), int(rng.integers(2, 8))
    offsets = rng.uniform(-3.5, -0.3, labels)
    unequal, by_label, scales, shifts = rng.uniform(0.0, [0.5, 0.3, 0.4, 0.8])  # from equal members to very unlike ones
    worth = np.exp(rng.normal(0, unequal, (members, 1)) + rng.normal(0, by_label, (members, labels)))
    shared = rng.uniform(0.2, 0.9)
    scale, shift = np.exp(rng.normal(0, scales, members)), rng.normal(0, shifts, members)

    def draw(count: int) -> Members:
        signal = offsets + 1.5 * rng.normal(size=(count, labels))
        targets = (rng.random(signal.shape) < expit(1.7 * signal)).astype(np.uint8)
        common = rng.normal(size=signal.shape)
        tables = []
        for member in range(members):
            noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=signal.shape)
            logits = scale[member] * (signal + noise * 1.5 / worth[member]) + shift[member]
            tables.append(expit(logits))
        return Members(targets, tables)

    return draw(rows), draw(FRESH), METRICS[METRIC_NAMES[seed % len(METRIC_NAMES)]]


def folds_of(rows: int) -> Ints:
    """Five folds of rows in random order."""
    return np.random.default_rng(0).integers(0, FOLDS, rows)


def decided(metric: Metric, train: Members, oof: Floats, fresh: Floats) -> tuple[Bits | Floats, list[Bits | Floats]]:
    """What the metric scores out of fold, and on fresh rows: of decisions, one table for each fold's thresholds."""
    if metric.takes == "probabilities":
        return oof, [fresh]
    scores = score_out_of_fold(metric, train.targets, oof, folds_of(len(oof)), policy="prevalence", resamples=0)
    return scores.cross_fitted_decisions, [(fresh >= own).astype(np.uint8) for own in scores.fold_thresholds]


def play(seed: int) -> Outcome:
    """Blend the members of a competition, and score the blend and the equal mean on fresh rows."""
    train, fresh, metric = competition(seed)
    sign = 1.0 if metric.greater_is_better else -1.0
    logits, fresh_logits = member_logits(train.tables), member_logits(fresh.tables)
    fit = fit_blend(metric, train.targets, logits, folds_of(len(train.targets)))

    def scores(oof: Floats, predicted: Floats) -> tuple[float, float, Bits | Floats]:
        known, tables = decided(metric, train, oof, predicted)
        pieces = blocks(
            FRESH // len(train.targets) * len(train.targets), len(train.targets)
        )  # as few rows: no bias of size
        true = np.nanmean(
            [metric.function(fresh.targets[rows], table[rows]).value for rows in pieces for table in tables]
        )
        return sign * metric.function(train.targets, known).value, sign * float(true), known

    blended = fit.blend.apply(logits, fresh_logits)
    promised, true, known = scores(fit.probabilities, blended)
    in_sample, _, _ = scores(fit.blend.apply(logits, logits), blended)
    _, base, base_known = scores(np.mean(train.tables, axis=0), np.mean(fresh.tables, axis=0))
    differences = np.subtract(*resample(metric, train.targets, [known, base_known], resamples=100))
    method = f"{fit.blend.mean}, {fit.blend.kind}"
    error = float(np.nanstd(differences))
    return Outcome(metric.name, true - base, error, promised - true, in_sample - true, method)


def report_twins() -> None:
    """Print the macro AUC of two members of which one is shifted by 3 logits."""
    rng = np.random.default_rng(0)
    train, fresh = shifted_twins(rng, 3_000), shifted_twins(rng, 100_000)
    logits, fresh_logits = member_logits(train.tables), member_logits(fresh.tables)
    metric = METRICS["auc_macro"]
    fit = fit_blend(metric, train.targets, logits, folds_of(len(train.targets)))
    rows = {"one member": fresh.tables[0]}
    for mean in MEANS:
        rows[f"equal mean of {mean}"] = Blend(mean, "equal", np.full(logits.shape[:2], 0.5)).apply(logits, fresh_logits)
    rows[f"chosen: {fit.blend.mean}, {fit.blend.kind}"] = fit.blend.apply(logits, fresh_logits)
    for name, table in rows.items():
        print(f"| {name} | {metric.function(fresh.targets, table).value:.4f} |")
    print("| best possible | 0.9452 |")  # Phi(1.6): two members with independent noise


def report_competitions(count: int) -> None:
    """Print gain and bias per metric."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        outcomes = list(pool.map(play, range(count)))
    print("| metric | gain over the equal mean | worst, in standard errors | cross-fitted - true | in-sample - true |")
    print("|---|---|---|---|---|")
    for name in (*METRIC_NAMES, "all"):
        some = [each for each in outcomes if name in (each.metric, "all")]
        if not some:
            continue
        gains, errors = np.array([each.gain for each in some]), np.array([each.error for each in some])
        worst = np.min(np.divide(gains, errors, out=np.zeros_like(gains), where=errors > 0))
        biases = [spread([each.bias for each in some]), spread([each.in_sample_bias for each in some])]
        print(f"| {name} | {spread(gains)} | {worst:+.2f} | {biases[0]} | {biases[1]} |")
    for seed, each in enumerate(outcomes):
        if each.gain < -each.error:
            print(f"competition {seed}: {each.metric} {each.gain:+.4f}, standard error {each.error:.4f}, {each.method}")
    for method, times in Counter(each.method for each in outcomes).most_common():
        print(f"{times:4d}  {method}")


def spread(values: Sequence[float] | Floats) -> str:
    """Mean and its standard error."""
    return f"{np.mean(values):+.4f} ± {np.std(values) / np.sqrt(len(values)):.4f}"


def report_size(members: int, rows: int, labels: int) -> None:
    """Print the time and memory of a large blend."""
    rng = np.random.default_rng(0)
    targets = (rng.random((rows, labels)) < 0.1).astype(np.uint8)
    logits = np.empty((labels, members, rows), np.float32)
    for own, target in zip(logits, targets.T, strict=True):
        own[:] = 1.5 * target - 2.5 + rng.normal(size=rows) + rng.normal(size=(members, rows))
    started = time.process_time()
    fit = fit_blend(METRICS["auc_macro"], targets, logits, folds_of(rows))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = time.process_time() - started
    print(f"{members} x {rows} x {labels}: {seconds:.0f} s of one core, {peak:.1f} GiB, {fit.blend[:2]}")


def main() -> None:
    """Print all reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--competitions", type=int, default=200)
    parser.add_argument("--size", type=int, nargs=3, default=[50, 30_000, 100], help="members, rows, labels")
    given = parser.parse_args()
    report_twins()
    report_competitions(given.competitions)
    report_size(*given.size)


if __name__ == "__main__":
    main()
