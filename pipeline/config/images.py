"""The sections on image files, and on the images that the model gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.section import After, Finite, Pixels, Positive, Section, Text
from pipeline.config.templates import columns_of

Byte = Annotated[int, Field(ge=0, le=255)]


class ImageFiles(Section):
    """The file of each id's image: a CSV column with file names, or a template such as `train/{id}.jpg`.

    The column's names are relative to the folder of that CSV, the template to `competition.root`. With `folders`, both
    are searched in each of these. `test_column` is the column's name in the test CSV, if it differs.
    """

    column: Text | None = "img_path"
    test_column: Text | None = None
    template: str | None = None
    test_template: str | None = None
    folders: list[str] = []
    test_folders: list[str] | None = None
    channel_files: list[str] = []

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
        if self.test_column is not None and self.column is None:
            raise ValueError("test_column needs a column; a template for the test images is test_template")
        if self.test_template is not None and self.template is None:
            raise ValueError("test_template needs a template; with a column the test CSV names the files")
        if self.channel_files and self.template is None:
            raise ValueError("channel_files needs a template with {channel}, such as train/{id}_{channel}.png")
        for template in (self.template, self.test_template):
            if template is not None:
                self._check_template(template)
        return self

    def _check_template(self, template: str) -> None:
        names = columns_of(template)
        if not set(names) - {"channel"}:
            raise ValueError(f"a template must hold {{id}} or the name of another column, got '{template}'")
        if bool(self.channel_files) != ("channel" in names):
            raise ValueError(f"{{channel}} in the template and channel_files go together, got '{template}'")


class ImagesConfig(Section):
    """Size, channels and normalisation of the images that the model gets, and the cache."""

    size: Pixels | tuple[Pixels, Pixels] = 384
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    channels: Annotated[int, Field(gt=0, le=1000)] = 3
    window: tuple[Finite, Finite] | None = None
    alpha: tuple[Byte, Byte, Byte] | None = None
    max_pixels: Annotated[int, Field(gt=0, le=1 << 30), After] = 200_000_000
    missing_end: Annotated[Literal["error", "accept"], After] = "error"
    mean: list[Finite] | None = None
    std: list[Positive] | None = None
    broken: Annotated[Literal["error", "skip"], After] = "error"
    cache: Annotated[str, After] = "auto"
    cache_format: Literal["auto", "raw", "jpeg"] = "auto"
    cache_size: Annotated[float, Field(ge=1, le=4)] = 1.25

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

    @model_validator(mode="after")
    def _a_possible_cache_format(self) -> Self:
        if self.cache == "none" and self.cache_format != "auto":
            raise ValueError(f"cache: none has no format, got cache_format: {self.cache_format}: set it to auto")
        if self.cache_format == "jpeg" and self.channels not in (1, 3):
            raise ValueError(f"cache_format: jpeg holds 1 or 3 channels, got {self.channels}: set auto or raw")
        return self

    @model_validator(mode="after")
    def _a_window_is_open(self) -> Self:
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueError(f"window needs [low, high] with low below high, got {list(self.window)}")
        return self
