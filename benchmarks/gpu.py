"""One GPU in one call of under eight minutes: the GPU tests, then a fold of digit scenes in each precision, as a table.

Run `python benchmarks/gpu.py`, with `--dry-run` for all of it on a CPU in tiny sizes (without fp16, which needs a GPU).
Each row is a process of its own: ResNet-50 from scratch, 224 px, batches of 64, fold 0 of three. Images a second are of
the fastest epoch, and of a second pass of prediction over all 2,000 images. Memory is the peak of PyTorch, on
a CPU that of the process. mAP after so few epochs shows only that a precision learns as the others do. In the dry run
torch.compile is switched off.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from pipeline.config import load_config
from pipeline.device import keep_freed_memory
from pipeline.events import ignore
from pipeline.prediction.out_of_fold import predict_rows
from pipeline.run.cv import build_task, run_cv
from pipeline.run.folder import RunFolder
from pipeline.run.plan import prepare
from pipeline.training.build_prediction import load_ensemble

PROJECT = Path(__file__).parent.parent
ROWS = {
    "fp32": ["train.precision=fp32"],
    "fp16": ["train.precision=fp16"],
    "bf16": ["train.precision=bf16"],
    "bf16, torch.compile": ["train.precision=bf16", "train.compile=true"],
}
LARGE = ["model.backbone=resnet50", "model.feature_stride=32", "model.hidden_dim=512", "model.ffn_dim=2048"]
LARGE += ["images.size=224", "train.batch_size=64", "train.epochs=6", "train.lr=3.0e-4", "train.workers=8"]
TINY = ["images.size=32", "train.epochs=2", "train.workers=0"]
SECONDS, ROW_SECONDS = 470, 150


def measure(name: str, *, dry_run: bool) -> dict[str, float]:
    """Train and predict with the settings of a row, in the working folder."""
    keep_freed_memory()
    config = load_config(PROJECT / "configs/demo.yaml", [*(TINY if dry_run else LARGE), *ROWS[name]])
    plan, run = prepare(config, debug=dry_run, listen=ignore), RunFolder(Path("runs") / name.replace(" ", "-"))
    run_cv(plan, run, folds=[0], fresh=True, listen=ignore)
    epochs = [json.loads(line) for line in run.fold(0).epochs.read_text(encoding="utf-8").splitlines()]
    trained = peak()
    task = build_task(plan, run, 0, folder=run.fold(0), listen=ignore)
    ensemble = load_ensemble(config, [run.fold(0).weights], labels=plan.table.labels, device=task.runtime.device)
    rows = np.arange(len(plan.table.ids))
    for _ in range(2):
        begin = time.perf_counter()
        logits = predict_rows(ensemble, plan.table, rows, task.sources.evaluation, task.runtime)
        seconds = time.perf_counter() - begin
    assert np.isfinite(logits).all()
    speed = max(epoch["images_per_second"] for epoch in epochs)
    return {
        "training": speed,
        "prediction": len(rows) / seconds,
        "training GB": trained,
        "prediction GB": peak(),
        "mAP": epochs[-1]["map"],
    }


def peak() -> float:
    """Gigabytes since the last call; on a CPU since the start of the process."""
    if not torch.cuda.is_available():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    gigabytes = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return gigabytes


def call(words: list[str], folder: Path, seconds: float) -> tuple[int, str]:
    """The exit code of `python WORDS` and the last line of its output; 124 after the seconds."""
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "NO_ALBUMENTATIONS_UPDATE": "1"}
    if "--dry-run" in words:
        environment["TORCH_COMPILE_DISABLE"] = "1"  # it takes a minute on a CPU
    try:
        ended = subprocess.run(
            [sys.executable, *words], cwd=folder, env=environment, timeout=seconds, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        return 124, f"not done after {seconds:.0f} seconds"
    lines = [
        line for line in (ended.stdout if ended.returncode == 0 else ended.stderr or ended.stdout).splitlines() if line
    ]
    return ended.returncode, lines[-1] if lines else ""


def main() -> int:
    """Print the table; returns 1 if the tests or a row failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, in tiny sizes")
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    dry = ["--dry-run"] if arguments.dry_run else []
    if arguments.row:
        print(json.dumps(measure(arguments.row, dry_run=arguments.dry_run)))
        return 0
    if not (arguments.dry_run or torch.cuda.is_available()):
        print("there is no GPU here; add --dry-run")
        return 2
    end, codes = time.monotonic() + SECONDS, []
    name = "CPU, tiny sizes" if arguments.dry_run else torch.cuda.get_device_name()
    table = Table("", "training img/s", "prediction img/s", "training GB", "prediction GB", "mAP", title=name)
    with tempfile.TemporaryDirectory() as folder:
        code, tests = call(["-m", "pytest", "-q", "-m", "gpu", str(PROJECT / "tests/gpu")], PROJECT, ROW_SECONDS)
        codes.append(code)
        for row in ROWS:
            if arguments.dry_run and row == "fp16":
                continue
            left = min(ROW_SECONDS, end - time.monotonic())
            code, line = call([str(Path(__file__).resolve()), "--row", row, *dry], Path(folder), left)
            codes.append(code)
            table.add_row(row, *cells(json.loads(line)) if code == 0 else (line,))
    Console(width=110).print(f"pytest -m gpu: {tests}", table)
    return int(any(codes))


def cells(measured: dict[str, Any]) -> list[str]:
    """The numbers of a row."""
    return [
        f"{value:,.0f}" if name in ("training", "prediction") else f"{value:.3g}" for name, value in measured.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
