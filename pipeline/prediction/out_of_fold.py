"""Predictions of training rows: validation after each epoch, and out-of-fold logits."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.competition.table import TrainTable
from pipeline.images.dataset import EvalImages, eval_loader
from pipeline.images.readers import ImageSource
from pipeline.prediction.predict import Ensemble, Runtime, needed_forms, predict


def predict_rows(
    ensemble: Ensemble, table: TrainTable, rows: NDArray[np.int64], source: ImageSource, runtime: Runtime
) -> NDArray[np.float64]:
    """Logits (len(rows), K) of these rows of the training table, in the order of `rows`."""
    if not len(rows):
        return np.empty((0, len(table.labels)))
    loader = eval_loader(
        EvalImages(table.paths, forms=needed_forms([ensemble]), source=source),
        rows,
        batch_size=runtime.batch_size,
        workers=runtime.workers,
        pin_memory=runtime.device.type == "cuda",
    )
    (logits,) = predict([ensemble], loader, device=runtime.device, precision=runtime.precision)
    return logits


def logits_frame(logits: NDArray[np.float64], table: TrainTable, rows: NDArray[np.int64]) -> pd.DataFrame:
    """The logits of `predict_rows` as a frame with the id and one column per label."""
    frame = pd.DataFrame(logits, columns=list(table.labels))
    frame.insert(0, "id", [table.ids[row] for row in rows])
    return frame
