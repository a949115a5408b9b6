"""What surrounds the training, on 100,000 rows and 500 labels: seconds and peak memory of each part.

Run `python benchmarks/scale.py`, with `--quick` for a tenth of the rows, `--parts labels folds` for some parts. Each
part runs in a process of its own on synthetic data; the goal is under a minute and under 2 GB each, libraries (0.94 GB)
and data included. The last part, `auto`, takes minutes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pipeline.audit.labels import label_findings
from pipeline.competition.folds import stratified_folds
from pipeline.competition.table import TrainTable, read_train
from pipeline.config import Config, check_config
from pipeline.events import ignore
from pipeline.files import write_parquet
from pipeline.images.caching.cache import ImageCache
from pipeline.images.check import check_images
from pipeline.images.geometry import image_form
from pipeline.metrics.registry import get_metric
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from pipeline.run.score import score_run
from pipeline.thresholds.row_rules import row_rules

LABELS, PER_ROW, PER_GROUP, FOLDS = 500, 5, 4, 5
PNG = bytes.fromhex(  # one grey pixel
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c6360000000020001"
    "48afa4710000000049454e44ae426082"
)


class Measured(NamedTuple):
    """One part's figures."""

    seconds: float
    processor_seconds: float  # over all threads: what a busy machine does not change much
    gigabytes: float  # the peak of its process, libraries and synthetic data included


def targets_of(rows: int) -> NDArray[np.float32]:
    """(rows, LABELS) with about PER_ROW positives a row, the k-th label in proportion to 1 / k."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, LABELS + 1)
    shares *= PER_ROW / shares.sum()
    return (rng.random((rows, LABELS), dtype=np.float32) < shares.clip(0, 0.9).astype(np.float32)).astype(np.float32)


def table_of(rows: int) -> TrainTable:
    """The table that the parts after the reading get."""
    return TrainTable(
        ids=tuple(f"i{row:07d}" for row in range(rows)),
        paths=tuple((Path(f"{row}.png"),) for row in range(rows)),
        targets=targets_of(rows),
        labels=tuple(f"label{number:03d}" for number in range(LABELS)),
        groups=tuple(f"g{row // PER_GROUP}" for row in range(rows)),
    )


def config_of(root: Path, policy: str = "fixed") -> Config:
    """A competition with all names in one cell."""
    labels = {"format": "delimited", "column": "tags", "classes": [f"label{number:03d}" for number in range(LABELS)]}
    competition = {
        "root": str(root),
        "labels": labels,
        "sample_submission": None,
        "images": {"template": "{id}.png"},
        "groups": {"column": "patient"},
    }
    return check_config({"competition": competition, "thresholds": {"policy": policy}}, source="benchmark")


def labels_part(rows: int, root: Path) -> Callable[[], object]:
    """Reading a CSV with the names of each row's labels in one cell."""
    table = table_of(rows)
    names = np.array(table.labels)
    tags = [" ".join(names[row > 0]) for row in table.targets]
    frame = pd.DataFrame({"id": table.ids, "tags": tags, "patient": table.groups})
    frame.to_csv(root / "train.csv", index=False)
    return lambda: read_train(config_of(root).competition, ignore)


def audit_part(rows: int, _root: Path) -> Callable[[], object]:
    """What --check says of labels."""
    table = table_of(rows)
    folds = np.arange(rows) % FOLDS
    return lambda: label_findings(table.positives, table.labels, folds)


def folds_part(rows: int, _root: Path) -> Callable[[], object]:
    """Stratified folds that keep groups of four whole."""
    table = table_of(rows)
    return lambda: stratified_folds(table.ids, table.positives, table.labels, count=FOLDS, seed=0, groups=table.groups)


def _write_images(rows: int, root: Path) -> list[tuple[Path]]:
    paths = [(root / f"{row}.png",) for row in range(rows)]
    for (path,) in paths:
        path.write_bytes(PNG)
    return paths


def cache_part(rows: int, root: Path) -> Callable[[], object]:
    """The name of a cache: size and time of every file, hashed."""
    paths = _write_images(rows, root)
    return lambda: ImageCache(paths, folder=root / "cache").file(image_form(Config().images), "raw")


def check_part(rows: int, root: Path) -> Callable[[], object]:
    """The look at every image before a run."""
    paths = _write_images(rows, root)
    return lambda: check_images(paths, image_form(Config().images), threads=2)


def scores_part(rows: int, root: Path, policy: str = "fixed") -> Callable[[], object]:
    """From the folds' logits to oof.parquet and scores, decided at 0.5."""
    table, config, run = table_of(rows), config_of(root, policy), RunFolder(root / "run")
    folds = np.arange(rows) // PER_GROUP % FOLDS
    rng = np.random.default_rng(1)
    for fold in range(FOLDS):
        inside = folds == fold
        logits = 3 * table.targets[inside] - 3 + rng.normal(size=(int(inside.sum()), LABELS))
        frame = pd.DataFrame(logits, columns=list(table.labels))
        frame.insert(0, "id", [table.ids[row] for row in np.flatnonzero(inside)])
        write_parquet(run.fold(fold).oof, frame)
    rules = row_rules(config.submission, config.competition, table.labels)
    plan = Plan(config, table, folds, get_metric("f1_macro"), rules)
    return lambda: score_run(plan, run, range(FOLDS))


def thresholds_part(rows: int, root: Path) -> Callable[[], object]:
    """The same, with thresholds by label, cross-fitted."""
    return scores_part(rows, root, "per_label")


def auto_part(rows: int, root: Path) -> Callable[[], object]:
    """The same, with the default policy, which compares eight on 16 sets of folds."""
    return scores_part(rows, root, "auto")


PARTS: dict[str, Callable[[int, Path], Callable[[], object]]] = {
    "labels": labels_part,
    "audit": audit_part,
    "folds": folds_part,
    "cache": cache_part,
    "check": check_part,
    "scores": scores_part,
    "thresholds": thresholds_part,
    "auto": auto_part,
}


def measure(name: str, rows: int) -> Measured:
    """Make a part's data, then run the part; called in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        run = PARTS[name](rows, Path(folder))
        start, worked = time.perf_counter(), time.process_time()
        run()
        seconds, worked = time.perf_counter() - start, time.process_time() - worked
    return Measured(seconds, worked, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    given = parser.parse_args()
    rows = 10_000 if given.quick else 100_000
    drawn = Table(
        "part", "what", "seconds", "CPU s", "peak GB", title=f"{rows:,} rows, {LABELS} labels", title_justify="left"
    )
    for name in given.parts:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found = pool.submit(measure, name, rows).result()
        what = (PARTS[name].__doc__ or "").splitlines()[0]
        drawn.add_row(name, what, f"{found.seconds:.1f}", f"{found.processor_seconds:.1f}", f"{found.gigabytes:.2f}")
    Console(width=110).print(drawn)


if __name__ == "__main__":
    main()
