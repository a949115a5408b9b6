"""A scored run of simulated predictions: its whole folder without a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from pipeline.config import check_config
from pipeline.files import write_csv, write_json_lines, write_parquet
from pipeline.metrics.label_table import per_label_table
from pipeline.metrics.registry import get_metric
from pipeline.run.folder import RunFolder
from pipeline.run.records import FoldDone, PredictSettings
from pipeline.run.score import build_scores, build_thresholds
from pipeline.thresholds.cross_fitting import score_out_of_fold

HOSTILE = (
    "<script>window.hacked = 1</script>",
    "\"><img src=x onerror='window.hacked = 1'>",
    "[/red] [bold]",
    "$x$ $\\frac{",
    "שלום \u202egnp.exe",
    "고양이",
    "long" * 75,
    "{{ 7 * 7 }} </script>",
)


def simulate(
    name: str,
    labels: Sequence[str],
    rows: int = 60,
    *,
    noise: float = 0.25,
    ids: Sequence[str] = (),
    pictures: bool = True,
    competition: dict[str, Any] | None = None,
    **sections: Any,
) -> RunFolder:
    """The run `name` in runs/, of the training table data/train.csv, in the working folder; both are written."""
    generator = np.random.default_rng(0)
    targets = (generator.random((rows, len(labels))) < 0.3).astype(np.uint8)
    probabilities = np.clip(0.2 + 0.6 * targets + noise * generator.normal(size=targets.shape), 0, 1)
    names = [*ids, *(f"r.{number:03d}" for number in range(len(ids), rows))]
    frame = pd.DataFrame(targets, columns=list(labels))
    frame.insert(0, "id", names)
    frame.insert(1, "img_path", [f"{number}.png" for number in range(rows)])
    Path("data").mkdir(exist_ok=True)
    frame.to_csv("data/train.csv", index=False)
    for number in range(rows if pictures else 0):
        cv2.imwrite(f"data/{number}.png", generator.integers(0, 255, (20, 30, 3)).astype(np.uint8))
    own = {"root": "data", "sample_submission": None, "labels": {"columns": list(labels), "missing": "ignore"}}
    data = {"competition": own | (competition or {}), "folds": {"count": 3}, **sections}
    config = check_config(data, source="test")
    run = RunFolder(Path("runs") / name)
    run.open(config, fresh=False)
    folds = np.arange(rows) % 3
    table = pd.DataFrame(probabilities, columns=list(labels))
    table.insert(0, "id", names)
    table.insert(1, "fold", folds)
    write_parquet(run.oof, table)
    write_csv(run.folds, pd.DataFrame({"id": names, "group": "", "fold": folds}))
    metric = get_metric("f1_macro")
    scored = score_out_of_fold(metric, targets, probabilities, folds, policy="fixed", resamples=0)
    figures = per_label_table(targets, probabilities, scored.cross_fitted_decisions)
    common: dict[str, Any] = {"metric": metric, "labels": labels, "folds": [0, 1, 2], "notes": []}
    build_scores(scored, figures, of_folds=[0, 1, 2], **common).save(run.scores)
    rates = scored.cross_fitted_decisions.mean(axis=0)
    policy = config.model_copy(update={"thresholds": config.thresholds.model_copy(update={"policy": "fixed"})})
    run.write_config(policy)
    build_thresholds(scored, policy, rates=rates, **common).save(run.thresholds)
    for fold in range(3):
        records = [{"epoch": epoch, "loss": 1 / epoch, "map": 0.1 * epoch, "seconds": 90.0} for epoch in range(1, 5)]
        write_json_lines(run.fold(fold).epochs, records)
        FoldDone(4, PredictSettings.of(config)).save(run.fold(fold).done)
    return run
