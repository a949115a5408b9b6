"""Predictions of training rows: validation after each epoch, and out-of-fold logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipeline import processes
from pipeline.competition.folds.rows import FoldRows
from pipeline.competition.table import TrainTable
from pipeline.config import Config
from pipeline.device import pick_device, resolve_precision
from pipeline.errors import RunError, listing
from pipeline.images.dataset import EvalImages, eval_loader
from pipeline.images.geometry import image_form
from pipeline.images.readers import ImageSource
from pipeline.model.build import load_model
from pipeline.prediction.predict import Ensemble, needed_forms, predict
from pipeline.prediction.tta import parse_views


def predict_rows(
    config: Config,
    ensemble: Ensemble,
    table: TrainTable,
    rows: NDArray[np.int64],
    source: ImageSource,
    *,
    workers: int,
    device: torch.device,
) -> NDArray[np.float64]:
    """Logits (len(rows), K) of these rows of the training table, in the order of `rows`.

    Where several processes call this together, each predicts a part, and all of them get the logits of all rows.
    """
    own = list(processes.part_of(range(len(rows))))
    loader = eval_loader(
        EvalImages(table.paths, forms=needed_forms([ensemble]), source=source),
        rows[own],
        batch_size=config.predict.batch_size or config.train.batch_size,
        workers=workers,
        pin_memory=device.type == "cuda",
    )
    precision = resolve_precision(config.train.precision, device)
    logits = np.full((len(rows), len(table.labels)), np.nan)
    if own:
        (logits[own],) = predict([ensemble], loader, device=device, precision=precision)
    for places, predicted in processes.gather((own, logits[own])):
        logits[places] = predicted
    return logits


def predict_fold(
    config: Config,
    table: TrainTable,
    rows: FoldRows,
    *,
    source: ImageSource,
    weights: Sequence[Path],
    workers: int,
) -> pd.DataFrame:
    """Out-of-fold logits of a fold: a row per validation row, with the id and one column per label.

    Args:
        weights: the files of the fold's seed models; predictions are averaged over models and views.

    Raises:
        RunError: the fold's weights are missing or broken.
    """
    device = pick_device()
    models = [load_model(path, device=device) for path in weights]
    for path, trained in zip(weights, models, strict=True):
        if trained.labels != table.labels:
            raise RunError(
                f"{path} predicts other labels than the training data have now, or in another order",
                expected=listing(table.labels, 12),
                got=listing(trained.labels, 12),
                remedy="restore the sample submission or competition.labels the run began with",
            )
    views = parse_views(config.predict.tta, size=config.images.height_width)
    networks, form = [trained.model for trained in models], image_form(config.images)
    ensemble = Ensemble(networks, models[0].normalizer, views, form, config.predict.average)
    logits = predict_rows(config, ensemble, table, rows.validation, source, workers=workers, device=device)
    frame = pd.DataFrame(logits, columns=list(table.labels))
    frame.insert(0, "id", [table.ids[row] for row in rows.validation])
    return frame
