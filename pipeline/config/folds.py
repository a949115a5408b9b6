"""How rows are dealt into folds, and which of them belong together."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.config.section import Section


class GroupColumn(Section):
    """The training CSV's column whose values must not be split between folds."""

    column: str


class FoldsConfig(Section):
    """How rows are dealt into folds."""

    count: Annotated[int, Field(ge=2)] = 5
    seed: int = 0
    file: str | None = None
