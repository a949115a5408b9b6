"""Which policy for thresholds is best, what does it promise, and does it keep it for the mean of fold models?

Simulated competitions: labels of 20 to 5,000 positives in 10,000 rows, five fold models whose scores are shifted and
squeezed as the asymmetric loss leaves them, out-of-fold scores of single models, and 10,000 fresh rows that the mean
of the five scores. One line of JSON for each repetition, then the tables:

    python benchmarks/thresholds.py run --repetitions 200 --out thresholds.jsonl
    python benchmarks/thresholds.py table thresholds.jsonl
    python benchmarks/thresholds.py speed
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.metrics.registry import METRICS, Metric
from pipeline.metrics.targets import Bits, Floats, Ints
from pipeline.thresholds.policies import POLICIES
from pipeline.thresholds.policy_selection import CrossFitter
from pipeline.thresholds.threshold_problem import threshold_problem
from pipeline.thresholds.transfer import transferred

ROWS, LABELS, MODELS = 10_000, 8, 5
FEWEST, MOST = 20, 5_000
METRIC_NAMES = ("f1_macro", "f1_micro", "f1_samples", "f2_samples", "accuracy_subset")
FIELDS = ("in_sample", "cross_fitted", "single", "unseen", "value", "rate")
POLICY_NAMES = ("fixed", "global", "prevalence", "shrunk", "per_label", "auto")


class Competition(NamedTuple):
    """One draw: out-of-fold scores of single models, and every model's scores of fresh rows."""

    targets: Bits  # (N, K)
    probabilities: Floats  # (N, K) each row by the model that was not trained on it
    parts: Ints  # (N,)
    fresh_targets: Bits  # (N, K)
    fresh_models: Floats  # (MODELS, N, K)


def simulate(rng: np.random.Generator) -> Competition:
    """Rows share a difficulty, labels differ in how well they are seen, models in their noise and their shifts."""
    strength = rng.uniform(1.5, 3.5, LABELS)
    rates = np.geomspace(FEWEST, MOST, LABELS) / ROWS
    squeeze, shift = rng.uniform(0.4, 0.8, LABELS), rng.normal(0.0, 0.7, LABELS) + 0.3
    drift = rng.normal(0.0, 0.25, (MODELS, LABELS))

    def draw() -> tuple[Bits, Floats]:
        targets = rng.random((ROWS, LABELS)) < rates
        common = strength * (targets - 0.5) + 0.6 * rng.normal(size=(ROWS, LABELS)) + 0.3 * rng.normal(size=(ROWS, 1))
        noisy = common + 0.75 * rng.normal(size=(MODELS, ROWS, LABELS))  # a model's own noise: what averaging removes
        logits = strength * noisy + np.log(rates / (1 - rates))
        return targets.astype(np.uint8), 1 / (1 + np.exp(-(squeeze * logits + shift + drift[:, None])))

    targets, models = draw()
    parts = rng.integers(0, MODELS, ROWS)
    return Competition(targets, models[parts, np.arange(ROWS)], parts, *draw())


def score(metric: Metric, drawn: Competition) -> dict[str, dict[str, float]]:
    """For each policy: both estimates, and the truth for single models and for their mean, by both transfers.

    `in_sample` estimates `single`: thresholds of all parts, on fresh rows that single models score.
    `cross_fitted` estimates `unseen`: the same, but no model's scores helped to fit its own thresholds.
    """
    problem = threshold_problem(metric, drawn.targets, drawn.probabilities)
    fitter = CrossFitter(problem, drawn.parts, platt=False)
    everything = frozenset(range(MODELS))
    mean = drawn.fresh_models.mean(axis=0)

    def decide(probabilities: Floats, thresholds: Floats) -> Bits:
        return problem.rules.apply(probabilities, thresholds)

    def fresh(decisions: Bits) -> float:
        return metric.function(drawn.fresh_targets, decisions).value

    def fresh_single(thresholds: Sequence[Floats]) -> float:
        """As out of fold, each fresh row by one model; the mean over five ways of giving rows to models."""
        decisions = np.stack([decide(*each) for each in zip(drawn.fresh_models, thresholds, strict=True)])
        rows = np.arange(ROWS)
        return float(np.mean([fresh(decisions[(rows + turn) % MODELS, rows]) for turn in range(MODELS)]))

    results = {}
    for policy in POLICY_NAMES:
        _, thresholds = fitter.thresholds(policy, everything)
        without = [fitter.thresholds(policy, everything - {part})[1] for part in range(MODELS)]
        cross_fitted = np.empty_like(drawn.targets)
        for part, others in enumerate(without):
            inside = drawn.parts == part
            cross_fitted[inside] = decide(drawn.probabilities[inside], others)
        moved = transferred("rate", thresholds, drawn.probabilities, mean)
        results[policy] = {
            "in_sample": problem.value(thresholds),
            "cross_fitted": metric.function(drawn.targets, cross_fitted).value,
            "single": fresh_single([thresholds] * MODELS),
            "unseen": fresh_single(without),
            "value": fresh(decide(mean, thresholds)),
            "rate": fresh(decide(mean, moved)),
        }
    return results


def run(repetitions: int, first_seed: int, out: Path) -> None:
    """Append a line for each repetition that the file does not hold yet; a line depends on its seed alone."""
    done = len(out.read_text(encoding="utf-8").splitlines()) if out.exists() else 0
    for number in range(done, repetitions):
        drawn = simulate(np.random.default_rng(first_seed + number))
        line = json.dumps({name: score(METRICS[name], drawn) for name in METRIC_NAMES})
        with out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def table(path: Path) -> None:
    """The study's tables in Markdown, and whether the promises were kept."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    cube = np.array(
        [[[[line[m][p][f] for f in FIELDS] for p in POLICY_NAMES] for m in METRIC_NAMES] for line in lines]
    )  # (repetitions, metrics, policies, fields)
    print(f"{len(lines)} repetitions\n")
    for how in ("value", "rate"):
        truth = cube[..., FIELDS.index(how)]
        gain = truth - cube[:, :, :1, FIELDS.index("value")]
        print(f"gain over 0.5 on fresh rows, mean of {MODELS} models, transfer: {how} (± Monte-Carlo error)\n")
        _print(gain.mean(axis=0), _error(gain))
    in_sample = _bias(cube, "in_sample", "single")
    print("in-sample estimate minus the truth: single models on fresh rows\n")
    _print(in_sample.mean(axis=0), _error(in_sample))
    for name, words in (("single", "single models on fresh rows"), ("unseen", "by thresholds without that model")):
        bias = _bias(cube, "cross_fitted", name)
        print(f"cross-fitted estimate minus the truth: {words}\n")
        _print(bias.mean(axis=0), _error(bias))
        _quarter(in_sample, bias)
    for how in ("value", "rate"):
        _promises(cube, FIELDS.index(how), how)


def _bias(cube: Floats, estimate: str, truth: str) -> Floats:
    """Estimate minus truth (repetitions, metrics, policies)."""
    bias: Floats = cube[..., FIELDS.index(estimate)] - cube[..., FIELDS.index(truth)]
    return bias


def _quarter(in_sample: Floats, cross_fitted: Floats) -> None:
    """Where the in-sample bias exceeds three Monte-Carlo errors: is the cross-fitted one under a quarter of it?"""
    flatters = in_sample.mean(axis=0) > 3 * _error(in_sample)
    size, error = np.abs(cross_fitted.mean(axis=0)), _error(cross_fitted)
    missed = flatters & (size >= in_sample.mean(axis=0) / 4)
    named = [
        f"{POLICY_NAMES[p]} {METRIC_NAMES[m]} ({size[m, p] / error[m, p]:.1f} errors from 0)"
        for m, p in np.argwhere(missed)
    ]
    print(f"under a quarter of the in-sample bias in {flatters.sum() - missed.sum()} of {flatters.sum()} places")
    print(f"  not in: {', '.join(named) or 'none'}\n")


def _promises(cube: Floats, how: int, name: str) -> None:
    truth, auto = cube[..., how], POLICY_NAMES.index("auto")
    simple = [POLICY_NAMES.index(policy) for policy in POLICY_NAMES if policy != "auto"]
    averages = truth.mean(axis=(0, 1))
    best = max(simple, key=lambda policy: averages[policy])
    lost = (averages[best] - averages[auto]) / averages[best]
    print(f"transfer {name}: best single policy on average {POLICY_NAMES[best]} {averages[best]:.4f}, ", end="")
    print(f"auto {averages[auto]:.4f}, loses {100 * lost:.2f} %")
    for other in ("fixed", "global"):
        behind = truth[:, :, POLICY_NAMES.index(other)] - truth[:, :, auto]
        beyond = behind.mean(axis=0) > 2 * _error(behind)
        named = [metric for metric, bad in zip(METRIC_NAMES, beyond, strict=True) if bad]
        print(f"  auto below {other} beyond noise: {', '.join(named) or 'nowhere'}")


def _print(means: Floats, errors: Floats) -> None:
    print("| | " + " | ".join(METRIC_NAMES) + " |\n|---" * 1 + "|---" * len(METRIC_NAMES) + "|")
    for policy, row, error in zip(POLICY_NAMES, means.T, errors.T, strict=True):
        cells = " | ".join(f"{value:+.4f} ± {e:.4f}" for value, e in zip(row, error, strict=True))
        print(f"| {policy} | {cells} |")
    print()


def _error(values: Floats) -> Floats:
    error: Floats = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return error


def speed() -> None:
    """How long the large fits take, and the peak memory after each."""
    rng = np.random.default_rng(0)

    def timed(name: str, shape: tuple[int, int], metric: str) -> None:
        probabilities = rng.random(shape)
        targets = (rng.random(shape) < probabilities**6).astype(np.uint8)
        start = time.process_time()
        POLICIES["per_label"](threshold_problem(METRICS[metric], targets, probabilities))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name}: {time.process_time() - start:.2f} s of one core, peak memory {peak:.2f} GiB", flush=True)

    timed("macro-F1, 100,000 x 100", (100_000, 100), "f1_macro")
    timed("micro-F1, 100,000 x 100", (100_000, 100), "f1_micro")
    timed("sample-F1 by coordinate ascent, 100,000 x 100", (100_000, 100), "f1_samples")
    timed("macro-F1, 100,000 x 1,103", (100_000, 1_103), "f1_macro")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table", "speed"])
    parser.add_argument("file", type=Path, nargs="?", default=Path("thresholds.jsonl"))
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=1000, help="smaller ones were seen while auto was designed")
    parser.add_argument("--out", type=Path, default=Path("thresholds.jsonl"))
    arguments = parser.parse_args()
    commands: dict[str, Callable[[], None]] = {
        "run": lambda: run(arguments.repetitions, arguments.first_seed, arguments.out),
        "table": lambda: table(arguments.file),
        "speed": speed,
    }
    commands[arguments.what]()


if __name__ == "__main__":
    main()
