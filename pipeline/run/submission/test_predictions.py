"""The models of finished runs, loaded, and their logits for the test images: each image is decoded once for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.competition.sample import TestTable
from pipeline.device import loading_workers, resolve_precision
from pipeline.errors import RunError
from pipeline.images.dataset import EvalImages, eval_loader
from pipeline.images.geometry import image_form
from pipeline.model.weights import load_model
from pipeline.prediction.predict import Ensemble, needed_forms, predict
from pipeline.prediction.tta import parse_views
from pipeline.run.submission.unreadable_images import noting_problems
from pipeline.run.trained_run import TrainedRun


def load_ensemble(run: TrainedRun, views: Sequence[str] | None, *, device: torch.device) -> Ensemble:
    """All models of a run, those of its folds and of a full fit, on `device`.

    They look at `views` or, if None, at the run's own; each counts alike in the average.

    Raises:
        RunError: weights are missing, broken or for other labels.
    """
    trained = [load_model(member.weights, device=device) for member in run.models]
    wrong = [member for member, model in zip(run.models, trained, strict=True) if model.labels != run.labels]
    if wrong:
        raise RunError(
            f"{run.run.path}: {wrong[0].weights} is for other labels than the run's thresholds",
            remedy="the run folder was changed by hand: start it with --fresh",
        )
    return Ensemble(
        models=[model.model for model in trained],
        normalizer=trained[0].normalizer,
        views=parse_views(views or run.config.predict.tta, size=run.config.images.height_width),
        form=image_form(run.config.images),
        average=run.config.predict.average,
    )


def predict_test(
    runs: Sequence[TrainedRun],
    ensembles: Sequence[Ensemble],
    test: TestTable,
    *,
    tolerant: bool,
    device: torch.device,
    on_image: Callable[[int, int], None] | None,
) -> tuple[list[NDArray[np.float64]], dict[int, str]]:
    """The logits (N, K) of each run, and by row what is wrong with images that cannot be read."""
    config = runs[0].config
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        if on_image is not None:
            on_image(done, len(test.ids))

    loader = eval_loader(
        EvalImages(test.paths, forms=needed_forms(ensembles), tolerant=tolerant),
        range(len(test.ids)),
        batch_size=config.predict.batch_size or config.train.batch_size,
        workers=loading_workers(config.train.workers, device),
        pin_memory=device.type == "cuda",
    )
    precision = resolve_precision(config.train.precision, device)
    problems: dict[int, str] = {}
    batches = noting_problems(loader, problems)
    return predict(ensembles, batches, device=device, precision=precision, on_batch=count), problems
