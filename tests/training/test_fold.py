"""One fold's training as a caller sees it: the hook after each epoch, its steps, its seeds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.competition.folds.rows import FULL_FIT, rows_of
from pipeline.config import load_config
from pipeline.run.plan import prepare
from pipeline.training.build_prediction import build_runtime
from pipeline.training.fold import ValidatedEpoch, train_model
from pipeline.training.fold_folder import FoldFolder
from pipeline.training.fold_task import FoldTask, steps_per_epoch
from pipeline.training.image_inputs import open_sources


class _EnoughError(Exception):
    pass


@pytest.fixture
def task(tiny_config: Path, tmp_path: Path) -> FoldTask:
    config = load_config(tiny_config, ["train.epochs=3"])
    plan = prepare(config, debug=False, listen=lambda _: None)
    sources = open_sources(config, plan.table.paths, folder=tmp_path, listen=print)
    folder, runtime = FoldFolder(tmp_path / "fold"), build_runtime(config)
    return FoldTask(config, plan.table, rows_of(plan.folds, 1), sources, folder, runtime)


def test_a_hook_sees_each_epochs_logits_and_may_end_the_training(task: FoldTask) -> None:
    seen: list[ValidatedEpoch] = []

    def stop_after_two(epoch: ValidatedEpoch) -> None:
        seen.append(epoch)
        if epoch.epoch == 2:
            raise _EnoughError

    with pytest.raises(_EnoughError):
        train_model(task, listen=print, on_epoch=stop_after_two)
    assert [(epoch.fold, epoch.epoch) for epoch in seen] == [(1, 1), (1, 2)]
    assert seen[0].logits.shape == (len(task.rows.validation), 3)
    assert not np.array_equal(seen[0].logits, seen[1].logits)
    assert not task.folder.weights.exists()
    assert len(task.folder.epochs.read_text().splitlines()) == 2


def test_the_targets_of_the_validation_rows_do_not_reach_the_training(task: FoldTask) -> None:
    """The balanced loss counts labels, of the training rows alone."""
    loss = task.config.loss.model_copy(update={"name": "db", "tolerance_kappa": 5.0})
    turned = task.table.targets.copy()
    turned[task.rows.validation] = 1 - turned[task.rows.validation]
    losses = []
    for name, targets in (("plain", task.table.targets), ("turned", turned)):
        config, table = task.config.model_copy(update={"loss": loss}), replace(task.table, targets=targets)
        folder = FoldFolder(task.folder.path.with_name(name))
        assert train_model(replace(task, config=config, table=table, folder=folder), listen=print)
        losses.append([json.loads(line)["loss"] for line in folder.epochs.read_text().splitlines()])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 1), (5, 1), (5, 2), (24, 1)])
def test_steps_are_counted_as_batches_are_made(task: FoldTask, batch_size: int, accumulate: int) -> None:
    train = task.config.train.model_copy(update={"batch_size": batch_size, "accumulate": accumulate})
    changed = replace(task, config=task.config.model_copy(update={"train": train}))
    assert steps_per_epoch(len(task.rows.train), train) == -(-len(changed.batches(0)) // accumulate)


def test_the_full_fit_trains_on_all_rows_with_the_seeds_that_it_always_had() -> None:
    folds = np.array([-1, 0, 1])
    rows = rows_of(folds, FULL_FIT)
    assert (rows.train.tolist(), rows.validation.tolist(), rows.seed_part) == ([0, 1, 2], [], -1)
    assert (rows_of(folds, 1).train.tolist(), rows_of(folds, 1).seed_part) == ([0, 1], 1)
