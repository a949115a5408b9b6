"""Do the picks of the ledger beat the best public and the best cross-validated submission on the private rows?

Simulated competitions: 5 to 20 submissions of families that err alike, scored by the mean F1 of a row. Some are fitted
to their folds, so that cross-validation flatters them.

    python benchmarks/ledger.py                    # 200 competitions, the table of docs/ledger.md
    python benchmarks/ledger.py --competitions 20
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from pipeline.metrics.posterior import Submissions, draw_private, pick
from pipeline.metrics.targets import Floats, Ints

LABELS = 12


class Competition(NamedTuple):
    """S submissions, and their private scores (S,)."""

    given: Submissions
    cross_validated: Floats
    private: Floats


def play(seed: int) -> Competition:
    """A competition with scores on training, public and private rows."""
    rng = np.random.default_rng(seed)
    count, families = int(rng.integers(5, 21)), int(rng.integers(2, 6))
    rows, test_rows = int(rng.integers(800, 4_000)), int(rng.integers(500, 3_000))
    public_rows = int(rng.uniform(0.1, 0.5) * test_rows)
    family = rng.integers(0, families, count)
    worth = 1.0 + 0.15 * rng.normal(size=families)[family] + 0.06 * rng.normal(size=count)
    own = rng.uniform(0.2, 0.6)
    total = rows + test_rows
    signal = rng.normal(size=(total, LABELS)) - 0.8
    targets = rng.random(signal.shape) < 1.0 / (1.0 + np.exp(-3.0 * signal))
    common = rng.normal(size=(families, total, LABELS))
    values, decided = [], []
    for submission in range(count):
        noise = np.sqrt(1 - own) * common[family[submission]] + np.sqrt(own) * rng.normal(size=signal.shape)
        chosen = signal + noise / worth[submission] > 0
        hits = 2.0 * (chosen & targets).sum(axis=1)
        values.append(hits / np.maximum(chosen.sum(axis=1) + targets.sum(axis=1), 1))
        decided.append((chosen - chosen.mean(axis=0))[rows:].ravel())
    scores = np.array(values)
    error = scores[:, :rows].std(axis=1).mean() / np.sqrt(rows)
    shift, fitted = 0.5 * error * rng.normal(), rng.uniform(0.0, 1.5) * error * np.abs(rng.normal(size=count))
    cross_validated = scores[:, :rows].mean(axis=1) + shift + fitted
    public, private = scores[:, rows : rows + public_rows].mean(axis=1), scores[:, rows + public_rows :].mean(axis=1)
    expected_error = np.full(count, error * np.sqrt(1.0 + rows / test_rows + 1.0))  # the last: shift and fit
    given = Submissions(
        cross_validated,
        expected_error,
        public,
        np.corrcoef(decided),
        row_variance=error**2 * rows,
        rows=rows,
        public_rows=public_rows,
        private_rows=test_rows - public_rows,
    )
    return Competition(given, cross_validated, private)


def shares(private: Floats, picks: list[int] | Ints) -> float:
    """The private rank of the best of the picks as a share: 0 is the best submission, 1 the last."""
    return float((private > private[picks].max()).sum() / (len(private) - 1))


def main() -> None:
    """Print mean private ranks and the cover of the intervals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--competitions", type=int, default=200)
    ranks: dict[str, list[float]] = {}
    covered: dict[str, list[float]] = {"private score, by the posterior": [], "public score, by cross-validation": []}
    for seed in range(parser.parse_args().competitions):
        given, cross_validated, private = play(seed)
        draws = draw_private(given)
        low, high = np.percentile(draws, [2.5, 97.5], axis=0)
        covered["private score, by the posterior"].append(float(np.mean((private >= low) & (private <= high))))
        away = np.abs(given.public - given.expected) <= 1.96 * given.public_error
        covered["public score, by cross-validation"].append(float(np.mean(away)))
        for count in (1, 2):
            ways: dict[str, list[int] | Ints] = {
                f"picks of the ledger ({count})": pick(draws, count),
                f"best public ({count})": np.argsort(-given.public)[:count],
                f"best cross-validated ({count})": np.argsort(-cross_validated)[:count],
            }
            for name, picks in ways.items():
                ranks.setdefault(name, []).append(shares(private, picks))
    for name, values in {**ranks, **covered}.items():
        print(f"| {name} | {np.mean(values):.3f} ± {np.std(values) / np.sqrt(len(values)):.3f} |")


if __name__ == "__main__":
    main()
