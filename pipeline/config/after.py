"""What applies to finished folds without training: thresholds, prediction, submission."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.section import PositiveInt, Section


class ThresholdsConfig(Section):
    """From which probability on a label is predicted, and whether probabilities are calibrated before."""

    policy: Literal["fixed", "global", "per_label", "shrunk", "prevalence", "optuna", "auto"] = "auto"
    transfer: Literal["value", "rate"] = "rate"
    calibration: Literal["auto", "none", "platt"] = "auto"


class PredictConfig(Section):
    """Test-time views, for out-of-fold and test predictions alike, and how they are averaged."""

    tta: Annotated[list[str], Field(min_length=1)] = ["identity"]
    average: Literal["probability", "logit"] = "probability"
    batch_size: PositiveInt | None = None
    broken: Literal["error", "fallback"] = "error"


class SubmissionConfig(Section):
    """What the scorer wants to read.

    `separator` joins names in a cell, or an id with its label in a long file; by default it is that of the labels.
    `ids` says which rows are asked for: `sample` those of the sample submission, `images` those of the files in the
    folder of test images (the sample gives its header alone), `auto` the sample's unless `make_submission.py --images`
    names a folder that holds them and more.
    """

    format: Literal["wide_binary", "wide_probability", "delimited", "ranked", "long_binary", "long_probability"] = (
        "wide_binary"
    )
    empty: str = "none"
    min_labels: Annotated[int, Field(ge=0)] = 0
    max_labels: PositiveInt | None = None
    digits: Annotated[int, Field(ge=1, le=17)] | None = None
    separator: Annotated[str, Field(min_length=1)] | None = None
    spelling: Literal["as_trained", "names"] = "as_trained"
    k: PositiveInt | None = None
    ids: Literal["auto", "sample", "images"] = "auto"
    columns: list[str] | None = None

    @property
    def rows(self) -> dict[str, str | int | None]:
        """What decides a row beside the thresholds, which are fitted with it."""
        return self.model_dump(include={"empty", "min_labels", "max_labels"})

    @model_validator(mode="after")
    def _numbers_that_fit(self) -> Self:
        if (self.format == "ranked") != (self.k is not None):
            raise ValueError("format: ranked and k (how many names a row holds) go together")
        if self.max_labels is not None and self.max_labels < self.min_labels:
            raise ValueError(f"max_labels={self.max_labels} is less than min_labels={self.min_labels}")
        return self
