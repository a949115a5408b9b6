"""A sheet of training images with out-of-fold predictions: `python -m pipeline figures RUN OUT.png`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from pipeline.competition.table import read_train
from pipeline.events import ignore
from pipeline.files import read_predictions, require_ours, write_atomically
from pipeline.images.decoding.decode import load_image
from pipeline.images.geometry import image_form
from pipeline.run.folder import RunFolder
from pipeline.run.submission.test_thresholds import read_decision_rule
from pipeline.run.trained_run import open_run
from pipeline.seeds import stable_seed
from pipeline.thresholds.row_rules import RowRules

_SOFTWARE = "q2l-pipeline"  # in the metadata of each figure; other files are not overwritten
Verdict = Literal["found", "missed", "wrong"]
COLOURS: dict[Verdict, str] = {"found": "#1a7f37", "missed": "#9a6700", "wrong": "#cf222e"}


class Caption(NamedTuple):
    """One label under an image, with its out-of-fold probability."""

    label: str
    verdict: Verdict
    probability: float

    @property
    def text(self) -> str:
        """The caption as printed: a missed label in brackets, a wrong one with a question mark."""
        shown = {"found": "{}", "missed": "({})", "wrong": "{}?"}[self.verdict].format(self.label)
        return f"{shown} {self.probability:.2f}"


def captions_for(
    labels: Sequence[str],
    targets: NDArray[Any],
    probabilities: NDArray[np.float64],
    thresholds: NDArray[np.float64],
) -> list[Caption]:
    """The captions of one image: its true and predicted labels, the most probable first. All arguments are (K,).

    A label whose target is unknown (NaN) is left out.
    """
    captions = [
        Caption(label, "found" if true and predicted else "missed" if true else "wrong", float(probability))
        for label, true, predicted, probability in zip(
            labels, targets, probabilities >= thresholds, probabilities, strict=True
        )
        if not np.isnan(true) and (true or predicted)
    ]
    return sorted(captions, key=lambda caption: -caption.probability)


def visible(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The channels of an image (H, W, C) that a figure shows: the first three as RGB, or the first as grey."""
    return image[:, :, :3] if image.shape[2] >= 3 else image[:, :, 0]


def draw_sheet(images: Sequence[NDArray[np.uint8]], captions: Sequence[Sequence[Caption]], *, columns: int) -> Figure:
    """A grid of images (H, W, C) with coloured captions below each."""
    rows = -(-len(images) // columns)
    lines = max((len(part) for part in captions), default=0)
    figure = Figure(figsize=(1.7 * columns, (1.8 + 0.17 * lines) * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image, part in zip(grid.flat, images, captions, strict=False):
        axes.imshow(visible(image), cmap="gray", vmin=0, vmax=255)
        axes.set_anchor("N")
        for line, caption in enumerate(part):
            axes.annotate(
                caption.text,
                xy=(0, 0),
                xytext=(0, -11 * (line + 1)),
                xycoords="axes fraction",
                textcoords="offset points",
                color=COLOURS[caption.verdict],
                fontsize=8,
                annotation_clip=False,
                parse_math=False,
            )
    return figure


def sheet_of_run(run: RunFolder, *, count: int, columns: int = 8) -> Figure:
    """A sheet of random validated images of a finished run with their true and predicted labels.

    Raises:
        PipelineError: the run is not finished, or its training data cannot be read.
    """
    finished = open_run(run)
    config, labels = finished.config, list(finished.labels)
    table = read_train(config.competition, ignore)
    oof = read_predictions(run.oof, labels)
    rule = read_decision_rule(finished, RowRules())
    truths = table.truths[:, [table.labels.index(name) for name in labels]]
    rows = [row for row, id_ in enumerate(table.ids) if id_ in oof.index]
    chosen = sorted(rows, key=lambda row: stable_seed("sheet", table.ids[row]))[:count]
    form = image_form(config.images)._replace(fit="pad")
    images = [load_image(table.paths[row], form) for row in chosen]
    captions = [
        captions_for(
            labels,
            truths[row],
            rule.calibrated(oof.loc[table.ids[row], labels].to_numpy(dtype=np.float64)),
            rule.thresholds,
        )
        for row in chosen
    ]
    return draw_sheet(images, captions, columns=columns)


def save_figure(figure: Figure, path: Path) -> None:
    """Write `figure` as a PNG atomically. Raises RunError if the path holds a file that is not ours."""
    require_ours(path, _is_ours)
    metadata = {"Software": _SOFTWARE}
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=90, metadata=metadata))


def _is_ours(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return bool(image.info.get("Software") == _SOFTWARE)
    except (OSError, ValueError, Image.DecompressionBombError):
        return False


def save_sheet(console: Console, run: RunFolder, out: Path, *, count: int) -> None:
    """Draw `count` training images with their out-of-fold predictions and save them as a PNG."""
    mpl.use("agg")
    save_figure(sheet_of_run(run, count=count), out)
    console.print(f"{out}: green found, brown (missed), red wrong?; probabilities are out-of-fold", markup=False)
