"""Predict the test images by finished runs: each image is decoded once for all of their models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.competition.sample import TestTable
from pipeline.images.dataset import EvalImages, eval_loader
from pipeline.prediction.predict import Ensemble, Runtime, needed_forms, predict
from pipeline.run.submission.unreadable_images import noting_problems


def predict_test(
    ensembles: Sequence[Ensemble],
    test: TestTable,
    runtime: Runtime,
    *,
    tolerant: bool,
    on_image: Callable[[int, int], None] | None,
) -> tuple[list[NDArray[np.float64]], dict[int, str]]:
    """The logits (N, K) of each ensemble, and by row the problems of images that cannot be read.

    Args:
        ensembles: one per run.
        test: N images.
        runtime: where and how this process computes.
        tolerant: take a blank image for one that cannot be read, instead of raising ImageError.
        on_image: called with (images done, all images).
    """
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        if on_image is not None:
            on_image(done, len(test.ids))

    loader = eval_loader(
        EvalImages(test.paths, forms=needed_forms(ensembles), tolerant=tolerant),
        range(len(test.ids)),
        batch_size=runtime.batch_size,
        workers=runtime.workers,
        pin_memory=runtime.device.type == "cuda",
    )
    problems: dict[int, str] = {}
    batches = noting_problems(loader, problems)
    return predict(ensembles, batches, device=runtime.device, precision=runtime.precision, on_batch=count), problems
