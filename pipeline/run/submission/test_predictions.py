"""Predict the test images by finished runs, each image decoded once; list those that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.competition.test_set import TestTable
from pipeline.config import Config
from pipeline.device import explained_memory_errors
from pipeline.errors import ImageError, RunError, listing
from pipeline.events import Listener
from pipeline.files import read_predictions, write_csv
from pipeline.images.dataset import EvalBatch, EvalImages, eval_loader
from pipeline.images.geometry import ImageForm
from pipeline.prediction.ensemble import sigmoid
from pipeline.prediction.predict import Runtime, needed_forms, predict
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
    listen: Listener,
    on_image: Callable[[int, int], None] | None,
) -> Iterator[TestPredictions]:
    """Predict by all models and views, and yield once.

    An image that cannot be read gets each label's mean out-of-fold probability.

    Args:
        runs: all of the same labels, in any order; the first one's config has the settings and the order of the result.
            A blend has no models: its test predictions are in its folder.
        test: N images.
        views: other views than the runs' own.
        listen: receives notes.
        on_image: called with (images done, all images).

    Raises:
        ImageError: an image cannot be read, and `predict.broken` is error; or none can be read.
        RunError: weights are missing, broken or for other labels; a blend is asked for other views or other images.
    """
    config, stored = runs[0].config, stored_predictions(runs, test.ids, views)
    trained = [run for run in runs if run.models]
    if not trained:
        yield TestPredictions(np.mean(stored, axis=0), {}, len(stored))
        return
    runtime = build_runtime(config, listen=listen)
    problems: dict[int, str] = {}
    done = 0

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
            for run in trained
        ]
        batches = read_images(test, needed_forms(ensembles), config, runtime, problems)
        logits = predict(ensembles, batches, device=runtime.device, precision=runtime.precision, on_batch=count)
    means = [sigmoid(each)[:, in_order_of_first(runs, run)] for each, run in zip(logits, trained, strict=True)]
    averaged = sum(len(each.models) * len(each.views) for each in ensembles) + len(stored)
    yield TestPredictions(fill_broken(np.mean([*means, *stored], axis=0), problems, runs), problems, averaged)


def read_images(
    test: TestTable, forms: Sequence[ImageForm], config: Config, runtime: Runtime, problems: dict[int, str]
) -> Iterator[EvalBatch]:
    """Load the test images in batches, each in all `forms`; adds to `problems`, by row, why one cannot be read.

    Raises:
        ImageError: an image cannot be read, and `predict.broken` is error.
    """
    loader = eval_loader(
        EvalImages(test.paths, forms=forms, tolerant=config.predict.broken == "fallback"),
        range(len(test.ids)),
        batch_size=runtime.batch_size,
        workers=runtime.workers,
        pin_memory=runtime.device.type == "cuda",
    )
    for batch in loader:
        problems.update(batch.problems)
        yield batch


def stored_predictions(
    runs: Sequence[TrainedRun], ids: Sequence[str], views: Sequence[str] | None
) -> list[NDArray[np.float64]]:
    """The test predictions (N, K) of each blend among the runs.

    Raises:
        RunError: a blend is asked for other views or other images.
    """
    labels, blends = list(runs[0].labels), [run for run in runs if not run.models]
    if blends and views is not None:
        raise RunError(
            f"{blends[0].folder.path} is a blend: it has no models, so --tta cannot apply to it",
            remedy="leave --tta away; or predict its members with --tta, and blend them again",
        )
    stored = []
    for run in blends:
        table = read_predictions(run.folder.blended, labels)
        missing = [id_ for id_ in ids if id_ not in table.index]
        if missing:
            raise RunError(
                f"{run.folder.path} is a blend without predictions for {len(missing)} of {len(ids)} test images",
                got=f"no row for {listing(missing, 3)}",
                remedy="predict these images with each member (make_submission.py MEMBER), then blend again",
            )
        stored.append(table.loc[list(ids), labels].to_numpy(np.float64))
    return stored


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
    tables = [read_predictions(run.folder.oof, ["fold", *labels]) for run in runs]
    used = [table.loc[table["fold"].isin(run.folds), labels] for run, table in zip(runs, tables, strict=True)]
    return np.asarray(np.mean([table.to_numpy(np.float64).mean(axis=0) for table in used], axis=0))


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
