"""Learning curves, the loss and validation scores by epoch: `python -m pipeline curves RUN OUT.png`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from rich.console import Console

from pipeline.errors import RunError
from pipeline.machine import regular
from pipeline.report.figures import save_figure
from pipeline.run.folder import RunFolder

Records = Sequence[Mapping[str, Any]]
_NO_SCORE = frozenset({"epoch", "lr", "images_per_second", "seconds", "skipped_steps"})


def read_epochs(run: RunFolder) -> dict[str, Records]:
    """The epoch records of each training of the run, by its folder in the run, such as `fold0`.

    Raises:
        RunError: no training has finished an epoch, or a file is not readable.
    """
    if run.blended.exists():
        raise RunError(f"{run.path} is a blend, which has no training", remedy="give one of its members")
    found: dict[str, Records] = {}
    for path in sorted(run.path.glob("**/epochs.jsonl"), key=_by_number):
        if run.search.path in path.parents:
            continue
        try:
            lines = regular(path).read_text(encoding="utf-8").splitlines()
            records = [_record(line) for line in lines]
        except (OSError, ValueError) as error:
            raise RunError(f"{path} is not readable: {error}", remedy="restore it, or start with --fresh") from None
        if records:
            found[str(path.parent.relative_to(run.path))] = records
    if not found:
        raise RunError(
            f"{run.path} holds no finished epoch",
            expected="a run folder with fold0/epochs.jsonl",
            remedy="give a run that run_cv.py has begun, for example runs/demo",
        )
    return found


def _record(line: str) -> Mapping[str, Any]:
    record = json.loads(line)
    if not isinstance(record, dict) or "epoch" not in record:
        raise ValueError(f"expected an object with an epoch in each line but got {line!r}")
    return record


def _by_number(path: Path) -> list[str | int]:
    """A sort key that puts fold10 after fold2."""
    return [int(part) if part.isdecimal() else part for part in re.split("([0-9]+)", str(path))]


def draw_curves(trainings: Mapping[str, Records]) -> Figure:
    """One plot for the loss and one per score, with a line per training. Null scores are left out."""
    names = list(dict.fromkeys(name for records in trainings.values() for record in records for name in record))
    shown = [name for name in names if name not in _NO_SCORE]
    figure = Figure(figsize=(4.6 * len(shown), 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(shown), squeeze=False).flat, shown, strict=True):
        for label, records in trainings.items():
            known = [record for record in records if record.get(name) is not None]
            axes.plot([record["epoch"] for record in known], [record[name] for record in known], label=label)
        axes.set_title("training loss" if name == "loss" else f"{name} on the validation rows", parse_math=False)
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    return figure


def save_curves(console: Console, run: RunFolder, out: Path) -> None:
    """Draw the learning curves of a run and save them as a PNG."""
    mpl.use("agg")
    trainings = read_epochs(run)
    save_figure(draw_curves(trainings), out)
    console.print(f"{out}: {', '.join(trainings)}")
