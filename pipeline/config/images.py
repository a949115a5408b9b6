"""Where an id's image lies, and what the model sees of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import model_validator

from pipeline.config.section import After, Positive, PositiveInt, Section


class ImageFiles(Section):
    """Where an id's image lies: a CSV column with paths relative to that CSV, or a template with `{id}`."""

    column: str | None = "img_path"
    template: str | None = None
    test_template: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_template_replaces_the_column(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("template") is not None and "column" not in data:
            return {**data, "column": None}
        return data

    @model_validator(mode="after")
    def _exactly_one_way(self) -> Self:
        if (self.column is None) == (self.template is None):
            raise ValueError("name either a column or a template, not both and not neither")
        for template in (self.template, self.test_template):
            if template is not None and "{id}" not in template:
                raise ValueError(f"a template must hold {{id}}, got '{template}'")
        if self.test_template is not None and self.template is None:
            raise ValueError("test_template goes with template; with a column the test CSV names the files")
        return self


class ImagesConfig(Section):
    """What the model sees of an image."""

    size: PositiveInt | tuple[PositiveInt, PositiveInt] = 384
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    channels: Literal[1, 3, 4] = 3
    mean: list[float] | None = None
    std: list[Positive] | None = None
    cache: Annotated[str, After] = "auto"

    @property
    def height_width(self) -> tuple[int, int]:
        """The size as (height, width) in pixels."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    @model_validator(mode="after")
    def _one_number_per_channel(self) -> Self:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{name} needs {self.channels} numbers, one per channel, got {len(values)}")
        return self
