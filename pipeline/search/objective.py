"""A trial: trains the searched folds with its values, the whole model or a head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pipeline.config import Config
from pipeline.device import explained_memory_errors
from pipeline.events import Event, Listener, StepFinished, TrialStep
from pipeline.run.cv import build_task
from pipeline.run.folder import RunFolder
from pipeline.run.plan import Plan
from pipeline.run.search_folder import TrialFolder
from pipeline.search.head_proxy import head_config
from pipeline.search.study import TimeUsed
from pipeline.search.trial_score import TrialScore
from pipeline.training.fold import ValidatedEpoch, train_model

OnScore = Callable[[int, int, float], None]
"""Receives fold, epoch (from 1) and score after each epoch; it may raise to end the trial."""


@dataclass(frozen=True)
class Trials:
    """Trials that train the model, or with `search.proxy: head` a head on the frozen backbone of each fold.

    Attributes:
        plan: the run, with the config's own values.
        run: its folder.
        folds: the folds to train, in this order.
        trial_score: scores a fold's validation logits.
        workers: number of workers on this machine.
    """

    plan: Plan
    run: RunFolder
    folds: tuple[int, ...]
    trial_score: TrialScore
    workers: int

    def train(self, number: int, config: Config, *, listen: Listener, on_score: OnScore) -> float:
        """Train with `config` from scratch and return the mean of the folds' scores after their last epoch.

        The files of the training are deleted, however it ends.

        Raises:
            PipelineError: as `train_model`, for example a loss that is not finite.
            TimeUsed: the plan's deadline passed.
        """
        folder = self.run.search.trial(number)
        folder.delete()
        try:
            with explained_memory_errors():
                return float(
                    np.mean([self._fold(fold, number, config, folder, listen, on_score) for fold in self.folds])
                )
        finally:
            folder.delete()

    def _fold(
        self, fold: int, number: int, config: Config, folder: TrialFolder, listen: Listener, on_score: OnScore
    ) -> float:
        def on_event(event: Event) -> None:
            if isinstance(event, StepFinished):
                listen(TrialStep(number, event))

        score = np.nan

        def on_epoch(epoch: ValidatedEpoch) -> None:
            nonlocal score
            score = self.trial_score(fold, epoch.logits)
            on_score(fold, epoch.epoch, score)

        plan = replace(self.plan, config=head_config(config, self.run, fold))
        task = build_task(plan, self.run, fold, folder=folder.fold(fold), beside=self.workers, listen=listen)
        if not train_model(task, listen=on_event, on_epoch=on_epoch, deadline=plan.deadline):
            raise TimeUsed
        return score


def trial_config(config: Config) -> Config:
    """`config` as its trials use it: trained for `search.epochs`, scored after the last one."""
    epochs = config.search.epochs or config.train.epoch_count
    return config.model_copy(update={"train": config.train.model_copy(update={"epochs": epochs, "select": "last"})})
