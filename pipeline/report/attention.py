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

_MOST = 20  # rows of labels that were not asked for by name
_MOST_NAMED = 350  # rows: matplotlib draws at most 65,536 pixels
_TILE = 160  # pixels of the image's longer side


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
    """The attention of `trained` for `labels`, or if None for the 20 most probable of the predicted ones, at least one.

    Raises:
        RunError: the model has no label queries, or labels share them.
        ConfigError: an unknown label, or more than 350.
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
    """A row per label: the image, then over it the mean of the heads and each head.

    All are one picture in one axes: matplotlib takes seconds for hundreds of axes.
    """
    scale = _TILE / max(attention.image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in attention.image.shape[:2])
    small = cv2.resize(visible(attention.image), (width, height), interpolation=cv2.INTER_AREA)
    plain = small if small.ndim == 3 else np.dstack([small] * 3)
    count, heads = attention.maps.shape[:2]
    step_y, step_x = height + 26, width + 6
    canvas = np.full((20 + count * step_y, max((heads + 2) * step_x, 400), 3), 255, np.uint8)
    figure = Figure(figsize=(canvas.shape[1] / 90, canvas.shape[0] / 90))  # save_figure writes 90 dots per inch
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    named = zip(attention.labels, attention.probabilities, attention.maps, strict=True)
    for top, (label, probability, maps) in zip(range(40, len(canvas), step_y), named, strict=True):
        layers = [np.zeros(maps.shape[1:], np.float32), maps.mean(axis=0), *maps]
        for place, heat in enumerate(layers):
            smooth = cv2.resize(heat, (width, height), interpolation=cv2.INTER_CUBIC)
            painted = mpl.colormaps["inferno"](smooth / max(float(smooth.max()), 1e-6))[..., :3]
            left = place * step_x
            canvas[top : top + height, left : left + width] = 0.35 * plain + 165 * painted if place else plain
        for left, text in ((2, f"{probability:.2f}"), (36, label)):  # apart: a label may be written from right to left
            axes.text(left, top - 6, text, fontsize=9, parse_math=False, clip_on=True)
    for place, text in enumerate(["image", "mean of heads", *(f"head {number}" for number in range(1, heads + 1))]):
        axes.text(2 + place * step_x, 14, text, fontsize=9, color="grey")
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    return figure


def _chosen_rows(
    known: Sequence[str],
    probabilities: NDArray[np.float64],
    labels: Sequence[str] | None,
    thresholds: NDArray[np.float64],
) -> list[int]:
    order = [int(row) for row in np.argsort(-probabilities)]
    if labels is None:
        return [row for row in order if probabilities[row] >= thresholds[row]][:_MOST] or order[:1]
    if len(set(labels)) > _MOST_NAMED:
        raise ConfigError(
            f"--labels: {len(set(labels))} labels do not fit into one picture",
            expected=f"at most {_MOST_NAMED} labels",
            remedy="give fewer labels, or leave --labels out for the predicted ones",
        )
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
    if not finished.models:
        raise RunError(f"{run.path} is a blend, which has no model", remedy="give one of its members")
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
    console.print(f"{out}: {listing(attention.labels, 20)}, model of fold {fold}")
