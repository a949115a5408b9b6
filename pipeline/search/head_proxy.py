"""Head trials: train one backbone per fold, then only heads on its feature maps.

The backbone was trained on the training rows with the config's own loss and head. So it fits these rows better than
new images, it favours the config's own values, and the effect of a loss on the backbone is not measured.
"""

from __future__ import annotations

from dataclasses import replace

from filelock import FileLock

from pipeline.config import Config, MixConfig
from pipeline.device import explained_memory_errors
from pipeline.events import Listener
from pipeline.run.cv import build_task
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from pipeline.search.study import TimeUsed
from pipeline.training.fold import train_model

_LOCK_SECONDS = 24 * 3600


def make_maps(plan: Plan, run: RunFolder, fold: int, *, listen: Listener) -> None:
    """Train the backbone that the trials of a fold freeze, if they need one, and make its maps; finished work is kept.

    Raises:
        PipelineError: as `train_model` and `MapCache.maps`.
        TimeUsed: the plan's deadline passed.
    """
    folder, config = run.search.proxy(fold), head_config(plan.config, run, fold)
    if config is not plan.config and not folder.weights.exists():
        folder.resume.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.lock, timeout=_LOCK_SECONDS), explained_memory_errors():
            if not folder.weights.exists():
                _train_backbone(plan, run, fold, listen)
    folder.delete_resume()
    if build_task(replace(plan, config=config), run, fold, folder=folder, listen=listen).maps is None:
        raise TimeUsed


def _train_backbone(plan: Plan, run: RunFolder, fold: int, listen: Listener) -> None:
    last = plan.config.model_copy(update={"train": plan.config.train.model_copy(update={"select": "last"})})
    task = build_task(replace(plan, config=last), run, fold, folder=run.search.proxy(fold), listen=listen)
    if not train_model(task, listen=listen, deadline=plan.deadline):
        raise TimeUsed


def head_config(config: Config, run: RunFolder, fold: int) -> Config:
    """`config` with `search.proxy: head` applied: a fresh head on the frozen backbone of the proxy.

    It is `config` itself without a proxy, and where `train.frozen_backbone` needs none.
    """
    if config.search.proxy == "none" or config.train.frozen_backbone:
        return config
    weights = str(run.search.proxy(fold).weights)
    return config.model_copy(
        update={
            "train": config.train.model_copy(update={"frozen_backbone": True}),
            "model": config.model.model_copy(update={"backbone_weights": weights, "weights": None}),
            "augment": config.augment.model_copy(update={"mix": MixConfig()}),
        }
    )
