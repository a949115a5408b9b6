"""The section on folds, and the sources of groups: rows that no fold may split."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator

from pipeline.config.section import PositiveInt, Section, Seed, Text


class GroupColumn(Section):
    """Rows with the same value in this column of the training CSV belong together."""

    column: Text


class GroupPattern(Section):
    """Rows whose id (or path) gives the same first capture of a regular expression belong together."""

    regex: str
    of: Literal["id", "path"] = "id"

    @field_validator("regex")
    @classmethod
    def _captures_something(cls, regex: str) -> str:
        try:
            captures = re.compile(regex).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if captures == 0:
            raise ValueError("the part for the group's name must be in brackets, as in '^(.+)_'")
        return regex


class GroupChunks(Section):
    """Each `chunks` consecutive rows of the training CSV are a group, counted separately for each value of `within`."""

    chunks: PositiveInt
    within: Text | None = None


class GroupFile(Section):
    """Rows with the same value in a column of another CSV, joined by id, belong together."""

    file: str
    column: Text


class GroupImages(Section):
    """Rows with nearly equal images belong together; `turned` also compares quarter turns and mirror images."""

    images: Literal["near"]
    turned: bool = False


def _kind_of_group(data: Any) -> str:
    keys = data if isinstance(data, Mapping) else type(data).model_fields if isinstance(data, Section) else {}
    return "groups by " + next((kind for kind in ("regex", "chunks", "file", "images") if kind in keys), "column")


GroupSource = Annotated[
    Annotated[GroupColumn, Tag("groups by column")]
    | Annotated[GroupPattern, Tag("groups by regex")]
    | Annotated[GroupChunks, Tag("groups by chunks")]
    | Annotated[GroupFile, Tag("groups by file")]
    | Annotated[GroupImages, Tag("groups by images")],
    Discriminator(_kind_of_group),
]


def _as_list(data: Any) -> Any:
    return [data] if isinstance(data, (Mapping, Section)) else data


# A single source needs no brackets. Groups of different sources that share a row become one.
Groups = Annotated[tuple[GroupSource, ...], Field(min_length=1), BeforeValidator(_as_list)]


class FoldsConfig(Section):
    """The number of folds and their seed, or a file with folds."""

    count: Annotated[int, Field(ge=2, le=1000)] = 5
    seed: Seed = 0
    file: str | None = None
