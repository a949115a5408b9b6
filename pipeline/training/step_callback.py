"""What happens after each step beside the learning: it is told, saved when that is due, and stopped in time."""

from __future__ import annotations

import math
import time

from pipeline import processes
from pipeline.events import Listener, StepFinished
from pipeline.training.build import Training
from pipeline.training.fold_task import FoldTask
from pipeline.training.loop import Step


class StepCallback:
    """After each step: tells the listener, saves the state when it is due, and stops when the time is used."""

    def __init__(
        self, task: FoldTask, training: Training, epoch: int, *, steps: int, listen: Listener, deadline: float
    ) -> None:
        self._fold, self._epoch, self._steps, self._epochs = task.rows.fold, epoch, steps, task.config.train.epochs
        self._training, self._folder, self._listen, self._deadline = training, task.folder, listen, deadline
        self._every = 60 * task.config.train.checkpoint_minutes
        self._lr = 0.0
        # time.monotonic throughout: a clock that is set anew changes nothing
        self._last = self._saved = time.monotonic()

    def step(self, step: Step) -> bool:
        """Take note of a step; False if training must stop here, its state saved."""
        sums = self._training.sums
        now = time.monotonic()
        sums.seconds, self._last = sums.seconds + now - self._last, now
        self._lr = step.lr
        self._listen(
            StepFinished(
                fold=self._fold,
                epoch=self._epoch + 1,
                epochs=self._epochs,
                step=self._epoch * self._steps + sums.steps,
                steps=self._epochs * self._steps,
                loss=step.loss,
                lr=step.lr,
                images_per_second=self._rate(),
            )
        )
        late = is_over(self._deadline)
        if sums.steps < self._steps and (late or now - self._saved > self._every):
            if processes.is_first():
                self._training.save(self._folder)
            self._saved = time.monotonic()
        return not late or sums.steps == self._steps  # a whole epoch is validated before it stops

    def facts(self) -> dict[str, float]:
        """Of the epoch so far, for its record."""
        sums = self._training.sums
        skipped = {"skipped_steps": sums.skipped} if self._training.accelerator.scaler is not None else {}
        return {
            "lr": self._lr,
            "images_per_second": round(self._rate(), 1),
            "seconds": round(sums.seconds, 2),
            **skipped,
        }

    def _rate(self) -> float:
        sums = self._training.sums
        return sums.images / max(sums.seconds, 1e-9)


def is_over(deadline: float) -> bool:
    """Whether it is over for the first process, and so for all of them."""
    return math.isfinite(deadline) and processes.first_says(time.monotonic() > deadline)
