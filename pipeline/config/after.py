"""What applies to finished folds without training: thresholds, prediction, submission."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.section import PositiveInt, Section


class ThresholdsConfig(Section):
    """From which probability on a label is predicted."""

    policy: Literal["fixed", "global", "per_label"] = "global"


class PredictConfig(Section):
    """Test-time views, for out-of-fold and test predictions alike, and how they are averaged."""

    views: Annotated[list[str], Field(min_length=1)] = ["identity"]
    average: Literal["probability", "logit"] = "probability"
    batch_size: PositiveInt | None = None
    broken: Literal["error", "fallback"] = "error"


class SubmissionConfig(Section):
    """What the scorer wants to read."""

    format: Literal["wide_binary", "wide_probability", "delimited"] = "wide_binary"
    empty: str = "none"
