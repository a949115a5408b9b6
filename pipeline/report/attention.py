"""Attention maps of a model for one image: `python -m pipeline attention RUN IMAGE`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

from pipeline.device import pick_device
from pipeline.errors import ConfigError, RunError, listing, nearest
from pipeline.images.decoding.decode import load_image
from pipeline.images.geometry import image_form
from pipeline.model.build import TrainedModel, load_model
from pipeline.model.query2label import Query2Label
from pipeline.report.figures import save_figure, visible
from pipeline.run.folder import RunFolder
from pipeline.run.submission.test_thresholds import read_decision_rule
from pipeline.run.trained_run import open_run
from pipeline.thresholds.calibration import Calibration
from pipeline.thresholds.row_rules import RowRules


class Attention(NamedTuple):
    """The attention of one model for labels of one image.

    Attributes:
        image: uint8 (H, W, C), the input of the model.
        labels: L names, the most probable first.
        probabilities: (L,), calibrated if the run is.
        maps: (L, heads, h, w) attention of the last decoder layer; each map sums to 1.
    """

    image: NDArray[np.uint8]
    labels: tuple[str, ...]
    probabilities: NDArray[np.float64]
    maps: NDArray[np.float32]


def read_attention(
    trained: TrainedModel,
    image: NDArray[np.uint8],
    *,
    labels: Sequence[str] | None,
    thresholds: NDArray[np.float64],
    device: torch.device,
    calibration: Calibration | None = None,
) -> Attention:
    """The attention of `trained` for `labels`, or if None for the predicted labels (at least the most probable one).

    Raises:
        RunError: the model has no label queries, or labels share them.
        ConfigError: an unknown label.
    """
    if not isinstance(trained.model, Query2Label) or len(trained.model.query_embed) != len(trained.labels):
        raise RunError(
            "this run's model has no query per label, so it has no attention map per label",
            remedy="train with model.head=q2l and model.query_groups=null",
        )
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
    with torch.inference_mode():
        logits, layers = trained.model(trained.normalizer(pixels), return_attention=True)
    probabilities = torch.sigmoid(logits[0].double()).cpu().numpy()
    if calibration is not None:  # thresholds apply to calibrated probabilities
        probabilities = calibration.apply(probabilities)
    chosen = _chosen_rows(trained.labels, probabilities, labels, thresholds)
    maps = layers[-1][0].float().cpu().numpy().swapaxes(0, 1)  # (K, heads, h, w)
    return Attention(image, tuple(trained.labels[row] for row in chosen), probabilities[chosen], maps[chosen])


def draw_attention(attention: Attention) -> Figure:
    """A row per label: the image, then over it the mean of the heads and each head."""
    count, heads = attention.maps.shape[:2]
    figure = Figure(figsize=(1.9 * (heads + 2), 2.1 * count), layout="constrained")
    grid = figure.subplots(count, heads + 2, squeeze=False)
    for row, (label, probability, maps) in enumerate(
        zip(attention.labels, attention.probabilities, attention.maps, strict=True)
    ):
        shown = [(f"{label} {probability:.2f}", None), ("mean of heads", maps.mean(axis=0))]
        shown += [(f"head {number}", head) for number, head in enumerate(maps, start=1)]
        for axes, (title, heat) in zip(grid[row], shown, strict=True):
            axes.set_axis_off()
            axes.set_title(title, fontsize=9, parse_math=False)
            axes.imshow(visible(attention.image), cmap="gray", vmin=0, vmax=255)
            if heat is not None:
                height, width = attention.image.shape[:2]
                smooth = cv2.resize(heat, (width, height), interpolation=cv2.INTER_CUBIC)
                axes.imshow(smooth, cmap="inferno", alpha=0.65, vmin=0, vmax=max(float(smooth.max()), 1e-6))
    return figure


def _chosen_rows(
    known: Sequence[str],
    probabilities: NDArray[np.float64],
    labels: Sequence[str] | None,
    thresholds: NDArray[np.float64],
) -> list[int]:
    order = [int(row) for row in np.argsort(-probabilities)]
    if labels is None:
        return [row for row in order if probabilities[row] >= thresholds[row]] or order[:1]
    for name in labels:
        if name not in known:
            raise ConfigError(
                f"--labels: unknown label '{name}'{nearest(name, known)}",
                expected=f"names out of {listing(known, 12)}",
                remedy="correct --labels",
            )
    return [row for row in order if known[row] in labels]


def save_attention(
    console: Console,
    run: RunFolder,
    image: Sequence[Path],
    *,
    labels: Sequence[str] | None,
    fold: int,
    out: Path | None,
) -> None:
    """Draw the attention of a fold's model for one image and save it as a PNG.

    Args:
        console: prints the path of the picture.
        run: a finished run.
        image: the file of the image, or one file per channel.
        labels: the labels to draw; None draws the predicted ones.
        fold: the fold whose model is used.
        out: the path of the picture; None is IMAGE-attention.png in the working folder.

    Raises:
        ConfigError: an unknown fold or label.
        RunError: the run is not finished, or its model has no query per label.
    """
    mpl.use("agg")
    finished = open_run(run)
    if fold not in finished.folds:
        raise ConfigError(
            f"--fold: there is no fold {fold}",
            expected=f"a fold out of {listing(finished.folds, 20)}",
            remedy="correct --fold",
        )
    device = pick_device()
    trained = load_model(finished.folder.fold(fold).weights, device=device)
    rule = read_decision_rule(finished, RowRules(), trained.labels)
    attention = read_attention(
        trained,
        load_image(tuple(image), image_form(trained.images)),
        labels=labels,
        thresholds=rule.thresholds,
        device=device,
        calibration=rule.calibration,
    )
    out = out or Path(f"{image[0].stem}-attention.png")
    save_figure(draw_attention(attention), out)
    console.print(f"{out}: {listing(attention.labels, 20)}, model of fold {fold}", markup=False)
