"""How the organisers write down which labels an image has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from pipeline.config.section import Section


class WideLabels(Section):
    """One 0/1 column per label; the columns are the sample submission's unless listed here."""

    format: Literal["wide"] = "wide"
    columns: list[str] | None = None


class DelimitedLabels(Section):
    """Label names in one cell, joined by a separator; an empty cell is a row without labels."""

    format: Literal["delimited"] = "delimited"
    column: str
    separator: Annotated[str, Field(min_length=1)] = " "


def _label_format(data: Any) -> str:
    found = data.get("format", "wide") if isinstance(data, Mapping) else getattr(data, "format", "wide")
    return str(found)


Labels = Annotated[
    Annotated[WideLabels, Tag("wide")] | Annotated[DelimitedLabels, Tag("delimited")],
    Discriminator(_label_format),
]
