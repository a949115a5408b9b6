"""Thumbnails of the cells that a page shows, and the attention of their queries, as data URIs."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.competition.paths import ImagePaths
from pipeline.device import pick_device
from pipeline.errors import ImageError, PipelineError, listing
from pipeline.images.decoding.decode import load_image
from pipeline.images.geometry import image_form
from pipeline.model.build import load_model
from pipeline.report.attention import read_attention
from pipeline.report.figures import visible
from pipeline.run.trained_run import TrainedRun

_SIDE, _QUALITY = 144, 80
_MOST_ATTENTION = 80  # images: each is a pass through a model, perhaps on a CPU


@dataclass
class Pictures:
    """Data URIs: JPEGs by row, attention as PNGs by row and label; sentences on those that are missing."""

    images: dict[int, str] = field(default_factory=dict)
    attention: dict[tuple[int, str], str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_pictures(
    run: TrainedRun,
    paths: Mapping[int, ImagePaths],
    folds: Mapping[int, int],
    wanted: Mapping[int, Sequence[str]],
) -> Pictures:
    """The pictures of the rows in `paths`, as the model gets them, and the attention of the first 80 in `wanted`.

    Args:
        run: a scored run.
        paths: the files of each row.
        folds: of each row, whose model has not seen it.
        wanted: per row the labels whose attention is read.
    """
    found, unread, form = Pictures(), list[int](), image_form(run.config.images)
    with_attention = [row for row in wanted if row in paths][:_MOST_ATTENTION]
    if not run.models:
        with_attention = []
        found.notes.append("A blend has no model, so no attention is shown.")
    elif run.config.model.head != "q2l" or run.config.model.query_groups is not None:
        with_attention = []
        found.notes.append("Attention is shown for models with a query per label (model.head: q2l).")
    elif len(with_attention) < len(wanted):
        found.notes.append(f"Attention is shown for the first {len(with_attention)} images.")
    device = pick_device()
    model_of = lru_cache(1)(lambda fold: load_model(run.folder.fold(fold).weights, device=device))
    for row in sorted(paths, key=lambda row: folds[row]):
        try:
            image = load_image(paths[row], form)
        except ImageError:
            unread.append(row)
            continue
        found.images[row] = _thumbnail(image)
        if row not in with_attention:
            continue
        try:
            trained = model_of(folds[row])
            unused = np.zeros(len(trained.labels))
            read = read_attention(trained, image, labels=wanted[row], thresholds=unused, device=device)
            for label, maps in zip(read.labels, read.maps.mean(axis=1), strict=True):
                found.attention[row, label] = _heat(maps)
        except PipelineError as error:
            found.notes.append(f"Attention is missing: {error.problem}.")
            with_attention = []
    if unread:
        found.notes.append(f"{len(unread)} images could not be read, such as {listing(map(str, paths[unread[0]]))}.")
    return found


def _thumbnail(image: NDArray[np.uint8]) -> str:
    shown = visible(image)
    scale = min(1.0, _SIDE / max(shown.shape[:2]))
    size = [max(1, round(side * scale)) for side in shown.shape[1::-1]]
    small = cv2.resize(np.ascontiguousarray(shown), size, interpolation=cv2.INTER_AREA)
    return _data_uri("jpg", small[..., ::-1] if small.ndim == 3 else small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


def _heat(attention: NDArray[np.float32]) -> str:
    """A map (h, w) as an orange layer whose opacity is the attention relative to its peak."""
    layer = np.empty((*attention.shape, 4), np.uint8)
    layer[..., :3] = (0, 90, 255)  # OpenCV writes BGR
    layer[..., 3] = 200 * attention / max(float(attention.max()), 1e-9)
    return _data_uri("png", layer, [])


def _data_uri(kind: str, pixels: NDArray[Any], options: list[int]) -> str:
    written, data = cv2.imencode(f".{kind}", pixels, options)
    assert written
    return f"data:image/{'jpeg' if kind == 'jpg' else kind};base64,{base64.b64encode(data.tobytes()).decode()}"
