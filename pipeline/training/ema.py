"""The exponential moving average of the weights, which is what is validated and kept."""

from __future__ import annotations

from timm.utils.model_ema import ModelEmaV3


class WarmEma(ModelEmaV3):
    """timm's average of all parameters and buffers, with decay min(decay, (1 + t) / (10 + t)) at update t.

    The warm-up (as in TensorFlow's ExponentialMovingAverage with `num_updates`) lets the average follow the
    weights closely in the first steps, so that short trainings are not held back by their random start.
    """

    def get_decay(self, step: int | None = None) -> float:
        """The decay of update number `step`, counted from 0."""
        assert step is not None, "the warm-up needs the number of the update"
        return float(min(self.decay, (1 + step) / (10 + step)))
