"""Sections that apply to finished folds without new training: thresholds, prediction, submission."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.section import MOST, Duration, PositiveInt, Section, Text

Engine = Literal["torch", "onnxruntime", "openvino"]


class ThresholdsConfig(Section):
    """The fit of thresholds, their transfer to the test set, and the calibration of probabilities before it."""

    policy: Literal["fixed", "global", "per_label", "shrunk", "prevalence", "optuna", "auto"] = "auto"
    transfer: Literal["value", "rate"] = "rate"
    calibration: Literal["auto", "none", "platt"] = "auto"


class PredictConfig(Section):
    """The views of each image, for out-of-fold and test predictions, and how they are averaged."""

    tta: Annotated[list[str], Field(min_length=1)] = ["identity"]
    average: Literal["probability", "logit"] = "probability"
    batch_size: PositiveInt | None = None
    broken: Literal["error", "fallback"] = "error"
    engine: Engine = "torch"
    time_budget: Duration | None = None


class SubmissionConfig(Section):
    """The format and the rows of the submission.

    `cells` is how a cell holds several names: joined, as a list, or as a vector with a 0 or 1 for each label; brackets,
    quotes and blanks are those of the sample's cells. `constants` are the cells of columns that are no answer.
    `separator` joins names in a cell, or an id with its label in a long file; by default it is that of the labels.
    `ids` selects the rows: `sample` those of the sample submission; `images` those of the files in the folder of test
    images (the sample gives only its header); `auto` the sample's, unless `make_submission.py --images` names a folder
    with these images and more.
    """

    format: Literal["wide_binary", "wide_probability", "delimited", "ranked", "long_binary", "long_probability"] = (
        "wide_binary"
    )
    empty: str = "none"
    cells: Literal["joined", "list", "vector"] = "joined"
    constants: dict[Text, Text] = {}
    min_labels: Annotated[int, Field(ge=0, le=MOST)] = 0
    max_labels: PositiveInt | None = None
    digits: Annotated[int, Field(ge=1, le=17)] | None = None
    separator: Annotated[str, Field(min_length=1)] | None = None
    spelling: Literal["as_trained", "names"] = "as_trained"
    k: PositiveInt | None = None
    ids: Literal["auto", "sample", "images"] = "auto"
    columns: list[str] | None = None

    @property
    def rows(self) -> dict[str, str | int | None]:
        """The keys that change decisions row by row; thresholds are fitted with them."""
        return self.model_dump(include={"empty", "min_labels", "max_labels"})

    @model_validator(mode="after")
    def _numbers_that_fit(self) -> Self:
        if (self.format == "ranked") != (self.k is not None):
            raise ValueError("format: ranked needs k (the number of names in a row), and other formats have none")
        if self.cells != "joined" and self.format not in ("delimited", "ranked")[: 1 + (self.cells == "list")]:
            raise ValueError(f"cells: {self.cells} needs format: delimited, got {self.format}")
        if self.max_labels is not None and self.max_labels < self.min_labels:
            raise ValueError(f"max_labels={self.max_labels} is less than min_labels={self.min_labels}")
        return self


class TrackingConfig(Section):
    """The experiment trackers that a training is reported to, and the project (experiment) there."""

    to: list[Literal["tensorboard", "mlflow", "wandb", "trackio"]] = []
    project: Annotated[Text, Field(min_length=1)] = "q2l-pipeline"
