"""Before a run: read every file that it needs and build every named object, so that nothing fails half-way.

Nothing is written here but the built-in competition, where the config names it and it is missing.
"""

from __future__ import annotations

import importlib.util
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import processes
from pipeline.competition.digit_scenes import make_digit_scenes
from pipeline.competition.folds import ALWAYS_TRAIN
from pipeline.competition.folds.deal import deal_folds
from pipeline.competition.paths import nearest_file
from pipeline.competition.submission import SubmissionFormat, check_sample, submission_form
from pipeline.competition.submission.sample import read_sample
from pipeline.competition.table import TrainTable, read_train
from pipeline.competition.test_set import read_test_set
from pipeline.config import Config, TrainConfig, seconds_of
from pipeline.config.recipes import epochs_for
from pipeline.device import pick_device, resolve_precision
from pipeline.errors import ConfigError, listing
from pipeline.events import ImageProgress, Listener, Note, ignore
from pipeline.images.check import check_images, refuse_images, require_images
from pipeline.images.geometry import image_form
from pipeline.images.image_stats import few_bits, largest_samples
from pipeline.metrics.custom_metric import try_custom_metric
from pipeline.metrics.registry import Metric, get_metric
from pipeline.model.build import build_normalizer, require_memory, start_model
from pipeline.prediction.tta import parse_views
from pipeline.run.image_groups import with_image_groups
from pipeline.seeds import stable_seed
from pipeline.thresholds.row_rules import RowRules, row_rules
from pipeline.training.build import build_loss
from pipeline.training.image_inputs import train_augmentation

_LOOKED_AT = 50  # images, to see how many bits they use


@dataclass(frozen=True)
class Plan:
    """The parts of a run, checked.

    Attributes:
        config: the complete configuration.
        table: the N training rows.
        folds: (N,) the fold each row is validated in, or `ALWAYS_TRAIN`.
        metric: the competition's metric.
        rules: constraints on the decisions of each row.
    """

    config: Config
    table: TrainTable
    folds: NDArray[np.int64]
    metric: Metric
    rules: RowRules
    deadline: float = math.inf  # on the clock of time.monotonic: the end of train.time_budget

    def __getstate__(self) -> dict[str, Any]:
        """The deadline as a time of day: another machine, which may unpickle the plan, has another monotonic clock."""
        return {**self.__dict__, "deadline": self.deadline - time.monotonic() + time.time()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, deadline=state["deadline"] - time.time() + time.monotonic())

    @property
    def fold_numbers(self) -> tuple[int, ...]:
        """The folds that are validated, ascending."""
        return tuple(sorted({int(fold) for fold in self.folds} - {ALWAYS_TRAIN}))


def prepare(config: Config, *, debug: bool, listen: Listener) -> Plan:
    """Read the competition and build every named object once, on a few pixels.

    Args:
        config: the complete configuration.
        debug: keep only the rows of a few batches.
        listen: receives the progress of checking images, and notes.

    Raises:
        PipelineError: whatever is wrong with the config, the files, the images or the folds.
    """
    budget = config.train.time_budget
    deadline = math.inf if budget is None else time.monotonic() + seconds_of(budget)
    if config.competition.builtin == "digit_scenes":
        make_digit_scenes(Path(config.competition.root))
    complete = table = read_train(config.competition, listen)
    metric = get_metric(config.competition.metric, table.labels, custom_functions=True)
    try_custom_metric(metric.function, table.truths, takes=metric.takes)
    if config.images.broken == "skip":
        table = _without_broken_images(config, table, listen)
    form = submission_form(config.submission, config.competition, table.labels)
    rules = row_rules(config.submission, config.competition, table.labels)
    table = with_image_groups(config, table, listen)
    _check_submission_files(config, form, table, listen)
    folds = deal_folds(config, complete, table)
    if debug:
        table, folds = few_rows(table, folds, per_fold=2 * config.train.batch_size, seed=config.folds.seed)
    config = _with_epochs(config, rows=len(folds) - int(np.bincount(folds[folds >= 0]).max(initial=0)), listen=listen)
    _check_processes(config.train, folds, listen)
    _build_everything(config, table, listen)
    some = table.paths[:: -(-len(table.paths) // _LOOKED_AT)]
    lost = few_bits(largest_samples(some), config.images.window)
    if lost is not None:
        listen(Note(lost[0], "few_bits", lost[1]))
    if config.images.broken == "error":
        require_images(
            table.paths,
            image_form(config.images),
            threads=joblib.cpu_count(),
            progress=lambda done: listen(ImageProgress("checking images", done, len(table.paths))),
        )
    return Plan(config, table, folds, metric, rules, deadline)


def _with_epochs(config: Config, *, rows: int, listen: Listener) -> Config:
    """The config with a number for `train.epochs: auto`, by the `rows` that train the smallest fold."""
    train = config.train
    if train.epochs != "auto":
        return config
    epochs = epochs_for(rows, train.batch_size * train.accumulate)
    listen(Note(f"train.epochs=auto is {epochs} for {rows} training rows in batches of {train.batch_size}"))
    return config.model_copy(update={"train": train.model_copy(update={"epochs": epochs})})


def _without_broken_images(config: Config, table: TrainTable, listen: Listener) -> TrainTable:
    """The rows whose images can be decoded; a note names the others."""
    problems = check_images(
        table.paths,
        image_form(config.images),
        threads=joblib.cpu_count(),
        decode=True,
        progress=lambda done: listen(ImageProgress("decoding images", done, len(table.paths))),
    )
    broken = [f"{id_} ({problem})" for id_, problem in zip(table.ids, problems, strict=True) if problem is not None]
    if len(broken) == len(table.ids):
        refuse_images([problem for problem in problems if problem is not None], table.paths)
    if not broken:
        return table
    counts = f"{len(broken)} of {len(table.ids)}"
    listen(Note(f"{counts} training images cannot be read and are left out: {listing(broken, 20)}"))
    return table.take([row for row, problem in enumerate(problems) if problem is None])


def _check_processes(train: TrainConfig, folds: NDArray[np.int64], listen: Listener) -> None:
    """Raise ConfigError if a process would get one image, too few for a batch norm, or if Ray is missing; note that
    folds do not run side by side."""
    count = processes.count()
    if train.executor == "ray":
        processes.require_one("train.executor=ray")
        if importlib.util.find_spec("ray") is None:
            raise ConfigError(
                "train.executor=ray: Ray is not installed",
                remedy="pip install --constraint constraints.txt --editable '.[ray]', or set train.executor=local",
            )
    if count == 1:
        return
    validated = np.bincount(folds[folds >= 0])
    smallest = min(train.batch_size, len(folds) - int(validated.max(initial=0)))
    if smallest < 2 * count:
        raise ConfigError(
            f"a batch of {smallest} images has not two for each of {count} processes",
            remedy="raise train.batch_size, which counts the images over all processes, or start fewer of them",
        )
    if train.parallel_folds > 1:
        asked = f"train.parallel_folds={train.parallel_folds}"
        listen(Note(f"{asked}: {count} processes train each fold, in order"))


def _check_submission_files(config: Config, form: SubmissionFormat, table: TrainTable, listen: Listener) -> None:
    competition = config.competition
    path = Path(competition.root) / (competition.sample_submission or "")
    if competition.sample_submission is not None and not path.exists():
        listen(Note(f"there is no sample submission at {path}; it is needed when a submission is made"))
        return
    if competition.sample_submission is not None:
        check_sample(read_sample(competition), form)
    if config.submission.ids == "images" or (competition.test is None and competition.images.template is None):
        return
    if competition.sample_submission is None and competition.test is None:
        listen(
            Note("there is no sample submission and no test CSV: a submission will be about all files of its folder")
        )
        return
    asked = read_test_set(competition, config.submission, form, images=None, train_ids=table.ids, listen=ignore)
    missing = [path for image in asked.table.paths for path in image if not path.exists()]
    if missing:
        where = f"{listing(missing, 3)}; {nearest_file(missing[0])}"
        listen(Note(f"{len(missing)} test images are not there (yet): {where}"))


def _build_everything(config: Config, table: TrainTable, listen: Listener) -> None:
    images = config.images
    train_augmentation(config)
    build_loss(config.loss, labels=table.labels, targets=table.targets)
    resolve_precision(config.train.precision, pick_device())
    views = parse_views(config.predict.tta, size=images.height_width)
    require_memory(config.model, len(table.labels), [(*view.size, images.channels) for view in views])
    model = start_model(config.model, images, labels=table.labels, listen=listen)
    normalizer = build_normalizer(images, model)
    model.eval()
    for view in views:
        pixels = torch.zeros((1, images.channels, *view.size), dtype=torch.uint8)
        try:
            with torch.inference_mode():
                model(normalizer(view.apply(pixels)))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"model.backbone={config.model.backbone} cannot read the view '{view.name}' "
                f"of {view.size[0]}x{view.size[1]} pixels",
                got=str(error).splitlines()[0],
                remedy="change images.size or predict.tta to a size this backbone takes",
            ) from None


def few_rows(
    table: TrainTable, folds: NDArray[np.int64], *, per_fold: int, seed: int
) -> tuple[TrainTable, NDArray[np.int64]]:
    """A random part of every fold, for `--debug` and to measure speed."""
    order = sorted(range(len(folds)), key=lambda row: stable_seed("debug", seed, table.ids[row]))
    rows = sorted(row for fold in np.unique(folds) for row in [row for row in order if folds[row] == fold][:per_fold])
    return table.take(rows), folds[rows]
