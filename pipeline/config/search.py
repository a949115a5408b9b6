"""What the search for better settings may try, how a trial is judged, and where the trials are written down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from pipeline.config.section import Positive, PositiveInt, Section


class Dimension(Section):
    """The values one key may take: a range from low to high, or choices.

    Choices are a list, or a mapping from a name to a value where the values are lists or sections.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: Positive | None = None
    choices: list[Any] | dict[str, Any] | None = None

    @property
    def each_choice(self) -> list[Any]:
        """The choices without their names; none of a range."""
        return [*(self.choices.values() if isinstance(self.choices, dict) else self.choices or ())]

    @model_validator(mode="before")
    @classmethod
    def _is_a_mapping(cls, given: Any) -> Any:
        if not isinstance(given, Mapping | Dimension):
            raise ValueError("write a range as {low: 1, high: 4}, or values as {choices: [1, 4]}")  # noqa: TRY004
        return given

    @model_validator(mode="after")
    def _range_or_choices(self) -> Self:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("give either low and high, or choices")
        if self.choices is not None:
            if not self.choices or self.model_fields_set - {"choices"}:
                raise ValueError("choices need at least one value, and neither low, high, log nor step")
            return self
        assert self.low is not None and self.high is not None  # noqa: PT018 (checked above)
        if self.low >= self.high:
            raise ValueError(f"low must lie below high, got {self.low} and {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a log range needs low above 0 and no step")
        return self

    @model_serializer(mode="wrap")
    def _only_what_is_set(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in plain(self).items() if value is not None and value is not False}


class SearchConfig(Section):
    """An Optuna study over other training keys."""

    trials: PositiveInt = 30
    timeout: Positive | None = None
    space: Annotated[dict[str, Dimension], Field(min_length=1)] = {
        "loss.gamma_neg": Dimension(low=0, high=6),
        "loss.gamma_pos": Dimension(low=0, high=2),
        "loss.clip": Dimension(low=0, high=0.2),
    }
    share: Literal["all", "bucket", "label"] = "all"
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["median", "hyperband", "wilcoxon", "none"] = "median"
    judge: Literal["auto", "map", "metric"] = "auto"
    folds: Annotated[list[int], Field(min_length=1)] = [0]
    epochs: PositiveInt | None = None
    proxy: Literal["none", "head"] = "none"
    storage: str | None = None
    then: Literal["cv", "stop"] = "cv"
    seed: int = 0
