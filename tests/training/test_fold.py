"""One fold's training as a caller sees it: the hook after each epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.competition.folds.rows import rows_of
from pipeline.config import load_config
from pipeline.run.plan import prepare
from pipeline.training.build import build_runtime
from pipeline.training.fold import ValidatedEpoch, train_model
from pipeline.training.fold_folder import FoldFolder
from pipeline.training.fold_task import FoldTask
from pipeline.training.image_inputs import open_sources


class _EnoughError(Exception):
    pass


def test_a_hook_sees_each_epochs_logits_and_may_end_the_training(tiny_config: Path, tmp_path: Path) -> None:
    config = load_config(tiny_config, ["train.epochs=3"])
    plan = prepare(config, debug=False, listen=lambda _: None)
    rows, folder = rows_of(plan.folds, 1), FoldFolder(tmp_path / "fold")
    seen: list[ValidatedEpoch] = []

    def stop_after_two(epoch: ValidatedEpoch) -> None:
        seen.append(epoch)
        if epoch.epoch == 2:
            raise _EnoughError

    sources = open_sources(config, plan.table.paths, folder=tmp_path, listen=print)
    task = FoldTask(config, plan.table, rows, sources, folder, build_runtime(config))
    with pytest.raises(_EnoughError):
        train_model(task, listen=print, on_epoch=stop_after_two)
    assert [(epoch.fold, epoch.epoch) for epoch in seen] == [(1, 1), (1, 2)]
    assert seen[0].logits.shape == (len(rows.validation), 3)
    assert not np.array_equal(seen[0].logits, seen[1].logits)
    assert not folder.weights.exists()
    assert len(folder.epochs.read_text().splitlines()) == 2
