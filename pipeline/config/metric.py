"""The competition's metric: a name, a name with options, or a user's function."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from pipeline.config.section import NonNegative, Positive, PositiveInt, Section

BY_NAME, WITH_OPTIONS = "metric by name", "metric with options"
METRIC_TAGS = (BY_NAME, WITH_OPTIONS)
_FUNCTION = re.compile(r".+\.py:[A-Za-z_]\w*")


class MetricConfig(Section):
    """A metric with options; null means the metric's default. `get_metric` lists the options of each metric."""

    name: str | None = None
    average: Literal["macro", "micro", "samples", "weighted"] | None = None
    beta: Positive | None = None
    k: PositiveInt | None = None
    labels: tuple[str, ...] | None = None
    weights: dict[str, NonNegative] | None = None
    clip: Annotated[float, Field(gt=0, lt=0.5)] | None = None
    normalize: bool | None = None
    empty: Literal[0, 1] | None = None
    function: str | None = None
    takes: Literal["decisions", "probabilities"] | None = None
    greater_is_better: bool | None = None

    @field_validator("function")
    @classmethod
    def _is_file_and_name(cls, function: str | None) -> str | None:
        if function is not None and not _FUNCTION.fullmatch(function):
            raise ValueError("expected FILE.py:FUNCTION, such as my_metric.py:score")
        return function

    @model_validator(mode="after")
    def _one_of_two(self) -> MetricConfig:
        if (self.name is None) == (self.function is None):
            raise ValueError("give a metric's name, or your own function FILE.py:FUNCTION, and not both")
        return self


def _tag(value: Any) -> str:
    return BY_NAME if isinstance(value, str) else WITH_OPTIONS


MetricSpec = Annotated[Annotated[str, Tag(BY_NAME)] | Annotated[MetricConfig, Tag(WITH_OPTIONS)], Discriminator(_tag)]


def as_metric_config(spec: str | MetricConfig) -> MetricConfig:
    """`spec` as a section: a string FILE.py:FUNCTION is a function, any other string a name."""
    if isinstance(spec, MetricConfig):
        return spec
    return MetricConfig(function=spec) if _FUNCTION.fullmatch(spec) else MetricConfig(name=spec)


def anchored_metric(spec: str | MetricConfig, folder: Path) -> str | MetricConfig:
    """`spec` with the file of a user's function, which is relative to the config's `folder`, put below `folder`."""
    function = as_metric_config(spec).function
    if function is None:
        return spec
    anchored = str(folder / function)
    return anchored if isinstance(spec, str) else spec.model_copy(update={"function": anchored})
