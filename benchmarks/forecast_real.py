"""Does the forecast of the test score hold on held-out rows and clips of real data sets?

    python benchmarks/forecast_real.py --ucmerced DIR --aquarium DIR --splits 10

UC Merced: a fifth of the rows is held out. Aquarium: a fifth of the clips. A two-layer head on the frozen features of a
pretrained backbone is trained for each fold of the other rows; the held-out rows are predicted by the mean of the fold
models, decided by the project's `DecisionRule` and scored. One fold of five is also taken alone, as with `--folds 0`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recipes import TASKS

from pipeline.competition.folds import stratified_folds
from pipeline.competition.table import read_train
from pipeline.config import check_config
from pipeline.metrics.registry import get_metric
from pipeline.metrics.targets import Floats, Ints
from pipeline.thresholds.cross_fitting import score_out_of_fold
from pipeline.thresholds.decision_rule import DecisionRule
from pipeline.thresholds.forecast import forecast
from pipeline.thresholds.row_rules import RowRules

FOLDS = (3, 5, 1)  # 1: one of five is validated, and its model predicts the test
METRICS = ("f1_macro", "f1_micro", "map")
EPOCHS = 60


def features(table: Any, backbone: str, size: int) -> Floats:
    """The pooled features (N, F) of all images."""
    import cv2
    import timm

    network: Any = timm.create_model(backbone, pretrained=True, num_classes=0).eval()
    mean, std = (np.array(network.pretrained_cfg[key], np.float32) for key in ("mean", "std"))
    found = []
    with torch.inference_mode():
        for paths in table.paths:
            image: Any = cv2.imread(str(paths[0]))
            pixels = cv2.resize(image[:, :, ::-1], (size, size), interpolation=cv2.INTER_AREA)
            image = (pixels.astype(np.float32) / 255 - mean) / std
            found.append(network(torch.from_numpy(image.transpose(2, 0, 1)[None])).numpy()[0])
    values = np.stack(found)
    scaled: Floats = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-6)
    return scaled


def trained(inputs: Floats, targets: Any, seed: int) -> Any:
    """A two-layer head, trained for `EPOCHS`."""
    torch.manual_seed(seed)
    labels = targets.shape[1]
    head = torch.nn.Sequential(
        torch.nn.Dropout(0.5), torch.nn.Linear(inputs.shape[1], 128), torch.nn.ReLU(), torch.nn.Linear(128, labels)
    )
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.05)
    data = torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(targets.astype(np.float32))
    for _ in range(EPOCHS):
        order: Any = torch.randperm(len(inputs))
        for rows in order.split(32):
            loss: Any = torch.nn.functional.binary_cross_entropy_with_logits(head(data[0][rows]), data[1][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return head.eval()


def predicted(head: Any, inputs: Floats) -> Floats:
    """Probabilities (N, K)."""
    with torch.inference_mode():
        found: Floats = torch.sigmoid(head(torch.from_numpy(inputs.astype(np.float32)))).double().numpy()
    return found


def split(table: Any, seed: int) -> tuple[Ints, Ints]:
    """Numbers of the training rows and of the held-out rows: a fifth of the rows or of the groups."""
    names = np.array(table.groups or table.ids)
    groups = np.unique(names)
    held = np.isin(names, np.random.default_rng(seed).permutation(groups)[: len(groups) // 5])
    return np.flatnonzero(~held), np.flatnonzero(held)


def main() -> None:
    """Print one line a pair, and how many true scores lie inside."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for task in ("ucmerced", "aquarium"):
        parser.add_argument(f"--{task}", type=Path)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--splits", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    outcomes: dict[str, list[bool]] = {}
    for task in (task for task in ("ucmerced", "aquarium") if getattr(given, task)):
        data = TASKS[task]["config"]
        data["competition"]["root"] = str(getattr(given, task))
        config = check_config(data, source=task)
        table = read_train(config.competition, lambda _: None)
        inputs = features(table, given.backbone, 128)
        for seed in range(given.splits):
            for folds in FOLDS:
                for name, score, expected, truth in pairs(table, inputs, seed, folds):
                    inside = expected.low <= truth <= expected.high
                    outcomes.setdefault(f"{task}, {name}", []).append(inside)
                    outcomes.setdefault(f"{task}, {folds} folds", []).append(inside)
                    print(
                        f"{task:9} split {seed} folds {folds} {name:9} CV {score:.3f}  forecast {expected.value:.3f} "
                        f"({expected.low:.3f} to {expected.high:.3f})  true {truth:.3f}  {'' if inside else 'OUTSIDE'}",
                        flush=True,
                    )
    for kind, inside_each in outcomes.items():
        print(f"{kind}: {sum(inside_each)} of {len(inside_each)} inside")


def pairs(table: Any, inputs: Floats, seed: int, folds: int) -> list[tuple[str, float, Any, float]]:
    """Metric, cross-validated score, forecast and true score of one split."""
    train, test = split(table, seed)
    truths, positives = table.truths[train], table.positives[train]
    ids = [table.ids[row] for row in train]
    groups = table.groups and [table.groups[row] for row in train]
    parts = stratified_folds(ids, positives, table.labels, count=5 if folds == 1 else folds, seed=seed, groups=groups)
    rows = np.flatnonzero(parts == 0) if folds == 1 else np.arange(len(train))
    probabilities, on_test = np.zeros(positives.shape), []
    for fold in range(folds):
        head = trained(inputs[train[parts != fold]], positives[parts != fold], seed * 10 + fold)
        probabilities[parts == fold] = predicted(head, inputs[train[parts == fold]])
        on_test.append(predicted(head, inputs[test]))
    if folds == 1:  # its rows are parted for the cross-fitting, as a run with a single fold does
        own = groups and [groups[row] for row in rows]
        parts = stratified_folds([ids[row] for row in rows], positives[rows], table.labels, count=5, seed=0, groups=own)
    numbers = None if groups is None else np.unique([groups[row] for row in rows], return_inverse=True)[1]
    found = []
    for name in METRICS:
        metric = get_metric(name)
        scores = score_out_of_fold(
            metric, truths[rows], probabilities[rows], parts, policy="auto", calibration="auto", groups=numbers
        )
        rule = DecisionRule(
            scores.calibration, scores.thresholds, probabilities[rows], scores.policy, "rate", RowRules()
        )
        mean = np.mean(on_test, axis=0)
        answer = rule.decide(mean) if metric.takes == "decisions" else rule.calibrated(mean)
        expected = forecast(metric, truths[rows], scores, rule, folds=folds, models=folds, test=mean, groups=numbers)
        true = metric.function(table.truths[test], answer).value
        found.append((name, scores.cross_fitted.pooled.value, expected, true))
    return found


if __name__ == "__main__":
    main()
