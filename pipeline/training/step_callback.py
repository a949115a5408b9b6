"""After each step of a training: report it, save the state when that is due, stop in time."""

from __future__ import annotations

import math
import time

from pipeline import processes
from pipeline.events import Listener, StepFinished
from pipeline.training.checkpoint import save_training
from pipeline.training.distributed import from_first
from pipeline.training.fold_task import FoldTask
from pipeline.training.loop import Step, Training


class StepCallback:
    """Reports each step of one epoch, saves the state when that is due, and stops when the time is used."""

    def __init__(
        self, task: FoldTask, training: Training, epoch: int, *, steps: int, listen: Listener, deadline: float
    ) -> None:
        self._fold, self._epoch, self._steps, self._epochs = task.rows.fold, epoch, steps, task.config.train.epoch_count
        self._training, self._folder, self._listen, self._deadline = training, task.folder, listen, deadline
        self._every = 60 * task.config.train.checkpoint_minutes
        # time.monotonic throughout: a change of the system's clock does no harm
        self._last = self._saved = time.monotonic()

    def step(self, step: Step) -> bool:
        """Report a step; False if training must stop here, its state saved.

        Raises:
            KeyboardInterrupt: a signal came; the state is saved.
        """
        totals = self._training.totals
        now = time.monotonic()
        totals.seconds, self._last = totals.seconds + now - self._last, now
        self._listen(
            StepFinished(
                fold=self._fold,
                epoch=self._epoch + 1,
                epochs=self._epochs,
                step=self._epoch * self._steps + totals.steps,
                steps=self._epochs * self._steps,
                loss=step.loss,
                lr=step.lr,
                images_per_second=self._rate(),
            )
        )
        late = is_over(self._deadline)
        if step.interrupted:
            from_first(lambda: save_training(self._folder.checkpoint, self._training))
            raise KeyboardInterrupt
        if totals.steps < self._steps and (late or now - self._saved > self._every):
            if processes.is_first():
                save_training(self._folder.checkpoint, self._training)
            self._saved = time.monotonic()
        return not late or totals.steps == self._steps  # a whole epoch is validated before it stops

    def facts(self) -> dict[str, float]:
        """The learning rate and the speed, for the record of the epoch."""
        totals = self._training.totals
        skipped = {"skipped_steps": totals.skipped} if self._training.accelerator.scaler is not None else {}
        return {
            "lr": totals.lr,
            "images_per_second": round(self._rate(), 1),
            "seconds": round(totals.seconds, 2),
            **skipped,
        }

    def _rate(self) -> float:
        totals = self._training.totals
        return totals.images / max(totals.seconds, 1e-9)


def is_over(deadline: float) -> bool:
    """Whether the deadline has passed for the first process, which decides for all."""
    return math.isfinite(deadline) and from_first(lambda: time.monotonic() > deadline)
