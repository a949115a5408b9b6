"""Recipes beside a plain script, fastai and average pooling at equal processor time: mAP and macro F1.

    python benchmarks/recipes.py --ucmerced DIR --aquarium DIR --digits DIR --seeds 3 --out FOLDER

UC Merced: the official split. Aquarium: fold 0 of 3, grouped by clip. Digit scenes (made in DIR): fold 0 of 3, from
scratch. Each training runs in a process of its own with one thread; the processor time is that of the whole process,
start included. Macro F1 is cross-fitted over parts of the validation rows. The plain script is what most people write
first: timm's own network, BCE, AdamW at one rate. fastai needs its package; without it, leave it out with --only.
Finished trainings are read from --out, so that a stopped benchmark goes on. The last columns are paired differences to
the first contender of a task: the mean over seeds and the 95 % bootstrap interval over validation rows (clips).
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
        "epochs": 8,
    },
    "digits": {
        "config": {"competition": {"builtin": "digit_scenes"}},  # and all of configs/demo.yaml, see _config
        "epochs": 20,
    },
}
LARGE = {"hidden_dim": 512, "ffn_dim": 2048, "encoder_layers": 1, "decoder_layers": 2}
CONTENDERS: dict[str, tuple[dict[str, Any], float]] = {  # settings; epochs as a share of the task's, for equal time
    "plain": ({}, 1.0),
    "fastai": ({}, 1.0),
    "recipe": ({}, 1.5),
    "pooling": ({"model": {"head": "gap"}}, 1.5),
    "recipe, large head": ({"model": LARGE}, 1.0),
    "recipe, stride 16": ({"model": {"feature_stride": 16}}, 1.25),
    "pooling, stride 16": ({"model": {"head": "gap", "feature_stride": 16}}, 1.25),
    "recipe, Q2L without pooled residual": ({"model": {"pooled_residual": False}}, 1.5),
    "recipe, asymmetric loss": ({"loss": {"gamma_neg": 2.0}}, 1.5),
    "official recipe": ({"recipe": "official", "train": {"batch_size": 32}}, 1.0),
}


def run_one(task: str, contender: str, seed: int, root: str, backbone: str, predictions: str) -> dict[str, float]:
    """Train one contender, score its validation rows, write their targets, groups and probabilities to an .npz."""
    import torch

    from pipeline.device import keep_freed_memory
    from pipeline.metrics.registry import get_metric
    from pipeline.run.plan import prepare

    torch.set_num_threads(1)
    keep_freed_memory()
    plan = prepare(_config(task, contender, seed, root, backbone), debug=False, listen=lambda _: None)
    rows = np.flatnonzero(plan.folds == 0)
    logits = {"plain": _plain, "fastai": _fastai}.get(contender, _ours)(plan, rows, seed)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    targets = plan.table.truths[rows]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    groups = plan.table.groups or plan.table.ids
    np.savez(predictions, targets=targets, probabilities=probabilities, groups=[groups[row] for row in rows])
    return {
        "map": get_metric("map").function(targets, probabilities).value,
        "f1": _cross_fitted_f1(plan, rows, probabilities),
        "seconds": usage.ru_utime + usage.ru_stime,
    }


def _config(task: str, contender: str, seed: int, root: str, backbone: str) -> Any:
    import yaml

    from pipeline.config import check_config

    settings, share = CONTENDERS[contender]
    data = json.loads(json.dumps(TASKS[task]["config"]))
    if task == "digits":
        data = yaml.safe_load(Path(__file__).parent.parent.joinpath("configs/demo.yaml").read_text())
        data["train"]["parallel_folds"] = 1
        share = 1.0  # the digits' network has no more to it than its head
    data["competition"]["root"] = root
    data["model"] = {**({"backbone": backbone} if task != "digits" else data["model"]), **settings.get("model", {})}
    epochs = round(share * TASKS[task]["epochs"])
    data["train"] = {**data.get("train", {}), "workers": 0, "seed": seed, **settings.get("train", {}), "epochs": epochs}
    data |= {key: value for key, value in settings.items() if key not in ("model", "train")}
    return check_config(data, source=contender)


def _cross_fitted_f1(plan: Any, rows: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    from pipeline.competition.folds import stratified_folds
    from pipeline.metrics.registry import get_metric
    from pipeline.thresholds.cross_fitting import score_out_of_fold

    table = plan.table
    ids, positives = [table.ids[row] for row in rows], table.positives[rows]
    groups = table.groups and [table.groups[row] for row in rows]
    parts = stratified_folds(ids, positives, table.labels, count=5, seed=0, groups=groups)
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


def _fastai(plan: Any, rows: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """fastai's documented way: a vision learner with a timm network and `fine_tune`, with its default rate."""
    import pandas as pd
    from fastai.vision.all import (
        ColReader,
        DataBlock,
        ImageBlock,
        MultiCategoryBlock,
        RandomSplitter,
        Resize,
        aug_transforms,
        set_seed,
        vision_learner,
    )

    set_seed(seed)
    table, config = plan.table, plan.config

    def frame(chosen: NDArray[np.int64]) -> Any:
        names = [[label for label, bit in zip(table.labels, table.targets[row], strict=True) if bit] for row in chosen]
        return pd.DataFrame({"path": [str(table.paths[row][0]) for row in chosen], "labels": names})

    size = config.images.size
    block = DataBlock(
        blocks=(ImageBlock, MultiCategoryBlock(vocab=list(table.labels))),
        get_x=ColReader("path"),
        get_y=ColReader("labels"),
        splitter=RandomSplitter(0.02, seed=seed),  # it wants validation rows of its own; ours stay unseen
        item_tfms=Resize(size, method="squish"),
        batch_tfms=aug_transforms(flip_vert=True),
    )
    loaders = block.dataloaders(frame(np.flatnonzero(plan.folds != 0)), bs=32, num_workers=0)
    with tempfile.TemporaryDirectory() as folder:
        learner = vision_learner(loaders, config.model.backbone, path=folder)
        with learner.no_bar(), learner.no_logging():
            learner.fine_tune(config.train.epoch_count - 1)  # and one frozen epoch before
            probabilities, _ = learner.get_preds(dl=loaders.test_dl(frame(rows), bs=64))
    return np.asarray(np.log(probabilities) - np.log1p(-probabilities))


def _difference(metric: str, first: list[Path], other: list[Path]) -> str:
    """The mean over seeds of `other` minus `first`, with its 95 % bootstrap interval over validation groups."""
    from pipeline.metrics.bootstrap import interval, resample
    from pipeline.metrics.registry import get_metric

    pairs = [(np.load(a), np.load(b)) for a, b in zip(first, other, strict=True)]
    targets = pairs[0][0]["targets"]
    _, groups = np.unique(pairs[0][0]["groups"], return_inverse=True)
    tables = [each["probabilities"] for pair in pairs for each in pair]
    drawn = resample(get_metric(metric), targets, tables, groups=groups, resamples=500)
    differences = (drawn[1::2] - drawn[::2]).mean(axis=0)
    low, high = interval(differences)
    return f"{differences.mean():+.4f} ({low:+.4f} to {high:+.4f})"


def main() -> None:
    """Run all contenders on all tasks and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for task in TASKS:
        parser.add_argument(f"--{task}", help="folder of the data set")
        parser.add_argument(
            f"--{task}-epochs", type=int, default=TASKS[task]["epochs"], help="epochs of the plain script"
        )
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="contenders, joined by semicolons")
    parser.add_argument("--out", type=Path, default=Path("recipes"), help="folder of the results")
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    given = parser.parse_args()
    for task in TASKS:
        TASKS[task]["epochs"] = getattr(given, f"{task}_epochs")
    if given.one:
        task, contender, seed, root, backbone, predictions = given.one
        print(json.dumps(run_one(task, contender, int(seed), root, backbone, predictions)))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    for task in (task for task in TASKS if getattr(given, task)):
        contenders = given.only.split(";") if given.only else list(CONTENDERS)
        files = {}
        for contender in contenders:
            files[contender] = [_trained(given, task, contender, seed) for seed in range(given.seeds)]
            results = [json.loads(file.with_suffix(".json").read_text()) for file in files[contender]]
            table = {name: np.array([each[name] for each in results]) for name in ("map", "f1", "seconds")}
            scores = "  ".join(f"{name} {table[name].mean():.4f} ± {table[name].std():.4f}" for name in ("map", "f1"))
            difference = _difference("map", files[contenders[0]], files[contender])
            print(
                f"{task:9} {contender:36} {scores}  {table['seconds'].mean():4.0f} s of processor  mAP {difference}",
                flush=True,
            )


def _trained(given: argparse.Namespace, task: str, contender: str, seed: int) -> Path:
    """The predictions of one training, which runs only if they are missing."""
    epochs = TASKS[task]["epochs"]
    predictions: Path = given.out / f"{task}-{epochs}-{contender.replace(' ', '_')}-{seed}.npz"
    if not predictions.with_suffix(".json").exists():
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        )
        words = [sys.executable, __file__, f"--{task}-epochs", str(epochs), "--one"]
        words += [task, contender, str(seed), getattr(given, task), given.backbone, str(predictions)]
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        predictions.with_suffix(".json").write_text(done.stdout.splitlines()[-1])
    return predictions


if __name__ == "__main__":
    main()
