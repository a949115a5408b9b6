"""Does `search.proxy=head` rank settings as full training does? Spearman's correlation with its interval.

Run `python benchmarks/search_proxy.py`; 12 settings of 12 epochs, its defaults, take about 15 minutes of one free core.
One fold of digit scenes. Each setting of the asymmetric loss is trained in full and as a head on the feature maps of
one backbone, for the same number of epochs, from the same seed. To tell how far full training agrees with itself,
`--again` trains each setting in full a second time with another seed. Finished settings are kept in `--out`.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import qmc, spearmanr

from pipeline.config import Config, load_config
from pipeline.files import read_json, write_json
from pipeline.run.folder import RunFolder
from pipeline.run.plan import prepare
from pipeline.search.head_proxy import make_maps
from pipeline.search.objective import Trials, trial_config
from pipeline.search.space import config_with, parameters_of
from pipeline.search.trial_score import build_trial_score

FOLD = 0
RESAMPLES = 10_000


def settings(count: int) -> list[dict[str, float]]:
    """The default values, then a quasi-random filling of the default space (Sobol, seed 0)."""
    points = qmc.Sobol(3, seed=0).random(2 ** (count - 1).bit_length())[: count - 1]
    names, highs = ("loss.gamma_neg", "loss.gamma_pos", "loss.clip"), (6.0, 2.0, 0.2)
    own = {"loss.gamma_neg": 2.0, "loss.gamma_pos": 0.0, "loss.clip": 0.0}
    return [own, *({name: float(x * high) for name, x, high in zip(names, row, highs, strict=True)} for row in points)]


def score(trainer: Trials, values: dict[str, float], *, number: int, seed: int) -> tuple[float, float]:
    """mAP of one setting, and the seconds it took."""
    plan = trainer.plan
    parameters = parameters_of(plan.config, plan.table.labels, [0] * len(plan.table.labels))
    config: Config = config_with(trial_config(plan.config), parameters, values, source="benchmark")
    config = config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
    begin = time.perf_counter()
    value = trainer.train(number, config, listen=lambda _: None, on_score=lambda *_: None)
    return value, time.perf_counter() - begin


def interval(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float]:
    """Spearman's correlation and its 95 % interval: percentiles over resampled settings."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(x), (RESAMPLES, len(x)))
    ranks = [spearmanr(x[draw], y[draw]).statistic for draw in draws if len(np.unique(draw)) > 2]
    low, high = np.nanpercentile(ranks, [2.5, 97.5])
    return float(spearmanr(x, y).statistic), float(low), float(high)


def report(rows: dict[str, dict[str, Any]], console: Console) -> None:
    """The table of settings, then how the rankings agree."""
    table = Table(title=f"mAP of fold {FOLD}")
    for column in ("gamma_neg", "gamma_pos", "clip", "full", "head", "full again", "full s", "head s"):
        table.add_column(column, justify="right")
    for row in rows.values():
        values = [f"{row['values'][name]:.3f}" for name in row["values"]]
        shown = [f"{row[kind][0]:.4f}" if kind in row else "-" for kind in ("full", "head", "again")]
        seconds = [f"{row[kind][1]:.0f}" if kind in row else "-" for kind in ("full", "head")]
        table.add_row(*values, *shown, *seconds)
    console.print(table)
    for other, name in (("head", "full and head"), ("again", "full and full with another seed")):
        both = [row for row in rows.values() if "full" in row and other in row]
        if len(both) > 3:
            x, y = (np.array([row[kind][0] for row in both]) for kind in ("full", other))
            rho, low, high = interval(x, y)
            regret = x.max() - x[y.argmax()]
            console.print(
                f"{name}, {len(both)} settings: Spearman {rho:.2f} (95 % interval {low:.2f} to {high:.2f}); "
                f"the setting chosen by '{other}' is {regret:.4f} below the best in full training"
            )


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--again", action="store_true", help="train each setting in full with a second seed, too")
    parser.add_argument("--out", type=Path, default=Path("runs/search-proxy"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config(
        Path(__file__).parent.parent / "configs/demo.yaml",
        [f"train.epochs={arguments.epochs}", "folds.count=2", "search.proxy=head", "train.parallel_folds=1"],
    )
    console, plan = Console(width=110), prepare(config, debug=False, listen=lambda _: None)
    run, trial_score = RunFolder(arguments.out), build_trial_score(plan)
    make_maps(plan, run, FOLD, listen=lambda _: None)
    search = plan.config.search.model_copy(update={"proxy": "none"})
    whole = replace(plan, config=plan.config.model_copy(update={"search": search}))
    plans = {"head": plan, "full": whole, "again": whole}
    trainers = {kind: Trials(each, run, (FOLD,), trial_score, workers=1) for kind, each in plans.items()}
    path = arguments.out / "scores.json"
    rows: dict[str, dict[str, Any]] = read_json(path) if path.exists() else {}
    for number, values in enumerate(settings(arguments.settings)):
        row = rows.setdefault(json.dumps(values), {"values": values})
        for kind in ("head", "full", *(["again"] if arguments.again else [])):
            if kind not in row:
                row[kind] = score(trainers[kind], values, number=number, seed=1 if kind == "again" else 0)
                write_json(path, rows)
                console.print(f"{number} {kind} {row[kind][0]:.4f} {row[kind][1]:.0f} s")
    report(rows, console)


if __name__ == "__main__":
    main()
