"""Predict the test images by finished runs, each image decoded once; list those that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.competition.test_set import TestTable
from pipeline.device import explained_memory_errors
from pipeline.errors import ImageError, listing
from pipeline.files import read_predictions, write_csv
from pipeline.images.dataset import EvalBatch, EvalImages, eval_loader
from pipeline.prediction.ensemble import sigmoid
from pipeline.prediction.predict import needed_forms, predict
from pipeline.run.trained_run import TrainedRun
from pipeline.training.build_prediction import build_runtime, load_ensemble

BROKEN_COLUMNS = ["id", "problem"]


class TestPredictions(NamedTuple):
    """Predictions for N test images.

    Attributes:
        probabilities: (N, K) the mean over runs.
        problems: of the images that cannot be read, by row.
        averaged: how many models times views were averaged for each image.
        notes: sentences on what was averaged.
    """

    probabilities: NDArray[np.float64]
    problems: dict[int, str]
    averaged: int
    notes: tuple[str, ...] = ()


def predict_test(
    runs: Sequence[TrainedRun],
    test: TestTable,
    *,
    views: Sequence[str] | None,
    on_image: Callable[[int, int], None] | None,
) -> Iterator[TestPredictions]:
    """Predict by all models and views, and yield once.

    An image that cannot be read gets each label's mean out-of-fold probability.

    Args:
        runs: all of the same labels, in any order; the first one's config has the settings and the order of the result.
        test: N images.
        views: other views than the runs' own.
        on_image: called with (images done, all images).

    Raises:
        ImageError: an image cannot be read, and `predict.broken` is error; or none can be read.
        RunError: weights are missing, broken or for other labels.
    """
    config, runtime = runs[0].config, build_runtime(runs[0].config)
    problems: dict[int, str] = {}
    done = 0

    def noting_problems(batches: Iterator[EvalBatch]) -> Iterator[EvalBatch]:
        for batch in batches:
            problems.update(batch.problems)
            yield batch

    def count(images: int) -> None:
        nonlocal done
        done += images
        if on_image is not None:
            on_image(done, len(test.ids))

    with explained_memory_errors("lower predict.batch_size, or give fewer runs at once"):
        ensembles = [
            load_ensemble(
                run.config,
                [model.network(run.config.predict.engine) for model in run.models],
                labels=run.labels,
                device=runtime.device,
                tta=views,
            )
            for run in runs
        ]
        loader = eval_loader(
            EvalImages(test.paths, forms=needed_forms(ensembles), tolerant=config.predict.broken == "fallback"),
            range(len(test.ids)),
            batch_size=runtime.batch_size,
            workers=runtime.workers,
            pin_memory=runtime.device.type == "cuda",
        )
        batches = noting_problems(iter(loader))
        logits = predict(ensembles, batches, device=runtime.device, precision=runtime.precision, on_batch=count)
    means = [sigmoid(each)[:, in_order_of_first(runs, run)] for each, run in zip(logits, runs, strict=True)]
    averaged = sum(len(each.models) * len(each.views) for each in ensembles)
    yield TestPredictions(fill_broken(np.mean(means, axis=0), problems, runs), problems, averaged)


def in_order_of_first(runs: Sequence[TrainedRun], run: TrainedRun) -> list[int]:
    """The places of the first run's labels among those of `run`."""
    return [run.labels.index(label) for label in runs[0].labels]


def fill_broken(
    probabilities: NDArray[np.float64], problems: Mapping[int, str], runs: Sequence[TrainedRun]
) -> NDArray[np.float64]:
    """`probabilities` (N, K) with each label's mean out-of-fold probability in the rows of `problems`.

    Raises:
        ImageError: no image can be read.
    """
    if problems and len(problems) == len(probabilities):
        raise ImageError(
            f"not one of {len(probabilities)} test images can be read",
            got=listing(problems.values(), 3),
            remedy="check competition.root, competition.images or --images",
        )
    if problems:
        probabilities[list(problems)] = _mean_out_of_fold(runs)
    return probabilities


def _mean_out_of_fold(runs: Sequence[TrainedRun]) -> NDArray[np.float64]:
    """The mean out-of-fold probability (K,) of each label over all validated rows of runs, each run counting once."""
    labels = list(runs[0].labels)
    tables = [read_predictions(run.folder.oof, labels)[labels].to_numpy(np.float64) for run in runs]
    return np.asarray(np.mean([table.mean(axis=0) for table in tables], axis=0))


def write_broken(path: Path, ids: Sequence[str], problems: Mapping[int, str]) -> list[str]:
    """Write the ids and problems of unreadable images to the CSV `path`; returns a note on them.

    Without any, there is no note, and the file of an earlier submission is deleted.
    """
    if not problems:
        path.unlink(missing_ok=True)
        return []
    rows = sorted(problems)
    broken = [ids[row] for row in rows]
    write_csv(path, pd.DataFrame(zip(broken, (problems[row] for row in rows), strict=True), columns=BROKEN_COLUMNS))
    return [
        f"{len(rows)} of {len(ids)} test images cannot be read and got each label's mean out-of-fold probability: "
        f"{listing(broken)} (listed in {path})"
    ]
