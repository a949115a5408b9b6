"""Fine-tuning recipes beside a plain script, on data sets of your own: mAP, macro F1 and processor time.

    python benchmarks/recipes.py --ucmerced DIR --aquarium DIR --backbone tf_efficientnet_lite0 --seeds 3

UC Merced: the official split. Aquarium: fold 0 of 3, grouped by clip. Each training runs in a process of its own with
one thread; the processor time is that of the whole process, start included. Macro F1 is cross-fitted over parts of the
validation rows. The plain script is what most people write first: timm's own network, BCE, AdamW at one rate.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TASKS: dict[str, dict[str, Any]] = {
    "ucmerced": {
        "config": {
            "competition": {"test": "test.csv"},
            "folds": {"file": "official_folds.csv"},
            "images": {"size": 128},
            "augment": {"train": [{"D4": {"p": 1.0}}, {"ColorJitter": {"hue": 0.02, "p": 0.5}}]},
        },
        "epochs": 4,
    },
    "aquarium": {
        "config": {
            "competition": {
                "id": "image",
                "images": {"template": "images/{id}"},
                "labels": {"format": "delimited", "column": "labels"},
                "groups": {"column": "group"},
            },
            "folds": {"count": 3},
            "images": {"size": 160},
            "submission": {"format": "delimited", "empty": "argmax"},
        },
        "epochs": 12,
    },
}
CONTENDERS: dict[str, tuple[dict[str, Any], float]] = {  # settings, and epochs as a share of the task's
    "plain": ({}, 1.0),
    "recipe": ({}, 1.0),
    "recipe, Q2L without pooled residual": ({"model": {"pooled_residual": False}}, 1.0),
    "recipe, large head": (
        {"model": {"hidden_dim": 512, "ffn_dim": 2048, "encoder_layers": 1, "decoder_layers": 2}},
        1.0,
    ),
    "recipe, asymmetric loss": ({"loss": {"gamma_neg": 2.0}}, 1.0),
    "pooling": ({"model": {"head": "gap"}}, 1.0),
    "official recipe": ({"recipe": "official", "train": {"batch_size": 32}}, 1.0),
}


def run_one(task: str, contender: str, seed: int, root: str, backbone: str) -> dict[str, float]:
    """Train one contender and score its validation rows."""
    import torch

    from pipeline.config import check_config
    from pipeline.device import keep_freed_memory
    from pipeline.metrics.registry import get_metric
    from pipeline.run.plan import prepare

    torch.set_num_threads(1)
    keep_freed_memory()
    settings, share = CONTENDERS[contender]
    data = json.loads(json.dumps(TASKS[task]["config"]))
    data["competition"]["root"] = root
    data["model"] = {"backbone": backbone, **settings.get("model", {})}
    epochs = round(share * TASKS[task]["epochs"])
    data["train"] = {"workers": 0, "seed": seed, **settings.get("train", {}), "epochs": epochs}
    data |= {key: value for key, value in settings.items() if key not in ("model", "train")}
    plan = prepare(check_config(data, source=contender), debug=False, listen=lambda _: None)
    rows = np.flatnonzero(plan.folds == 0)
    logits = (_plain if contender == "plain" else _ours)(plan, rows, seed)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    targets = plan.table.truths[rows]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "map": get_metric("map").function(targets, probabilities).value,
        "f1": _cross_fitted_f1(plan, rows, probabilities),
        "seconds": usage.ru_utime + usage.ru_stime,
    }


def _cross_fitted_f1(plan: Any, rows: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    from pipeline.competition.folds import stratified_folds
    from pipeline.metrics.registry import get_metric
    from pipeline.thresholds.cross_fitting import score_out_of_fold

    table = plan.table
    ids, positives = [table.ids[row] for row in rows], table.positives[rows]
    parts = stratified_folds(ids, positives, table.labels, count=5, seed=0)
    scored = score_out_of_fold(get_metric("f1_macro"), table.truths[rows], probabilities, parts, policy="auto")
    return scored.cross_fitted.pooled.value


def _ours(plan: Any, rows: NDArray[np.int64], _seed: int) -> NDArray[np.float64]:
    from pipeline.files import read_predictions
    from pipeline.run.cv import run_cv
    from pipeline.run.folder import RunFolder

    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        run_cv(plan, run, folds=[0], fresh=False, listen=lambda _: None)
        labels = list(plan.table.labels)
        frame = read_predictions(run.fold(0).oof, labels)
        logits: NDArray[np.float64] = frame.loc[[plan.table.ids[row] for row in rows], labels].to_numpy(np.float64)
    return logits


def _plain(plan: Any, rows: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """The script that most people write first."""
    import timm
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    torch.manual_seed(seed)
    table, config = plan.table, plan.config
    model: Any = timm.create_model(config.model.backbone, pretrained=True, num_classes=len(table.labels))
    size, (mean, std) = config.images.size, (model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
    finish = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    resize, flips = (
        transforms.Resize((size, size)),
        [transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip()],
    )
    jitter = transforms.ColorJitter(0.2, 0.2, 0.2)

    class Images(Dataset[Any]):
        def __init__(self, chosen: NDArray[np.int64], transform: Any) -> None:
            self.chosen, self.transform = chosen, transform

        def __len__(self) -> int:
            return len(self.chosen)

        def __getitem__(self, place: int) -> Any:
            row = self.chosen[place]
            image = Image.open(table.paths[row][0]).convert("RGB")
            return self.transform(image), torch.tensor(table.targets[row], dtype=torch.float32)

    train = Images(np.flatnonzero(plan.folds != 0), transforms.Compose([resize, *flips, jitter, *finish]))
    loader = DataLoader(train, batch_size=32, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    steps = len(loader) * config.train.epoch_count
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps)
    for _ in range(config.train.epoch_count):
        model.train()
        for images, targets in loader:
            loss: Any = torch.nn.functional.binary_cross_entropy_with_logits(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    validation = DataLoader(Images(rows, transforms.Compose([resize, *finish])), batch_size=64)
    with torch.inference_mode():
        return np.concatenate([model(images).numpy() for images, _ in validation])


def main() -> None:
    """Run all contenders on all tasks and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for task in TASKS:
        parser.add_argument(f"--{task}", help="folder of the data set")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="contenders, joined by commas")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        task, contender, seed, root, backbone = given.one
        print(json.dumps(run_one(task, contender, int(seed), root, backbone)))
        return
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    for task in TASKS:
        root = getattr(given, task)
        for contender in given.only.split(",") if given.only else CONTENDERS if root else ():
            found = []
            for seed in range(given.seeds if root else 0):
                words = [sys.executable, __file__, "--one", task, contender, str(seed), root, given.backbone]
                done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
                found.append(json.loads(done.stdout.splitlines()[-1]))
            if found:
                table = {name: np.array([each[name] for each in found]) for name in ("map", "f1", "seconds")}
                scores = "  ".join(
                    f"{name} {table[name].mean():.4f} ± {table[name].std():.4f}" for name in ("map", "f1")
                )
                print(f"{task:10} {contender:40} {scores}  {table['seconds'].mean():.0f} s of processor", flush=True)


if __name__ == "__main__":
    main()
