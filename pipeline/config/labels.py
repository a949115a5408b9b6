"""The formats of the organisers' labels: one section per format, chosen by `format`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from pipeline.config.section import Section, Text

Policy = Literal["ones", "zeros", "ignore"]
PolicyByLabel = Policy | dict[str, Policy]
"""One policy for all labels, or a policy by label with an optional `default`."""


Separator = Annotated[str, Field(min_length=1)]


class LabelsSection(Section):
    """The key of every format: sets of labels that exclude each other."""

    exclusive: tuple[tuple[Text, ...], ...] = ()

    @model_validator(mode="after")
    def _sets_are_sets(self) -> Self:
        for names in self.exclusive:
            if len(names) < 2 or len(set(names)) < len(names):
                raise ValueError(f"exclusive needs lists of two or more different labels, got {list(names)}")
        return self


class WideLabels(LabelsSection):
    """One column per label: the columns of the sample submission, or those listed here.

    `uncertain` and `missing` set the value of uncertain and of blank cells; without a policy they are refused.
    """

    format: Literal["wide"] = "wide"
    columns: list[Text] | None = None
    soft: bool = False
    uncertain: PolicyByLabel | None = None
    uncertain_values: list[Text] = ["-1"]
    missing: PolicyByLabel | None = None


class NamesFile(Section):
    """A second CSV that gives each key in the cells its name."""

    file: str
    key: Text
    value: Text


class DelimitedLabels(LabelsSection):
    """All names of an image in one cell, joined by a separator or written as a list; names may be numbers.

    With `cells: vector` a cell holds a 0 or 1 for each of `classes`, or for each column of a wide sample submission.
    A blank cell, or one of `empty_tokens`, means no labels; `missing` sets another meaning for blank cells.
    """

    format: Literal["delimited"] = "delimited"
    column: Text
    separator: Separator = " "
    cells: Literal["joined", "list", "vector"] = "joined"
    empty_tokens: list[Text] = []
    names: NamesFile | None = None
    classes: list[Text] | None = None
    missing: PolicyByLabel = "zeros"


class ColumnsLabels(LabelsSection):
    """Several columns with a name in each, such as label_1, label_2, label_3. The other keys as in `delimited`."""

    format: Literal["columns"] = "columns"
    columns: Annotated[list[Text], Field(min_length=1)]
    empty_tokens: list[Text] = []
    classes: list[Text] | None = None
    missing: PolicyByLabel = "zeros"


class LongLabels(LabelsSection):
    """One row per image and label.

    The id column holds `<id><separator><label>`, or only the id if `label_column` holds the label. `column` holds the
    value; without it each row is a positive, which needs a `label_column`. With `filled`, any cell of `column`, such as
    a mask, is a positive, except a blank cell or one of `empty_tokens`.
    """

    format: Literal["long"] = "long"
    column: Text | None = None
    filled: bool = False
    separator: Separator = "_"
    label_column: Text | None = None
    empty_tokens: list[Text] = []
    classes: list[Text] | None = None
    soft: bool = False
    uncertain: PolicyByLabel | None = None
    uncertain_values: list[Text] = ["-1"]
    missing: PolicyByLabel | None = None

    @model_validator(mode="after")
    def _values_or_positive_rows(self) -> Self:
        if self.column is None and self.label_column is None:
            raise ValueError("set column (of the values), or label_column if every row is a positive")
        if self.filled and (self.column is None or self.soft):
            raise ValueError("filled needs the column of filled or blank cells, and soft: false")
        return self


class CocoLabels(LabelsSection):
    """`competition.train` is an annotation JSON; an image has the labels of its objects.

    `key` selects an image's id: its file name, the file name without folders and extension, or its number.
    """

    format: Literal["coco"] = "coco"
    key: Literal["file_name", "stem", "id"] = "file_name"
    classes: list[Text] | None = None


class VocLabels(LabelsSection):
    """`competition.train` is a folder with a file `<label>_<split>.txt` of `id value` lines for each label.

    Values are -1 (no), 1 (yes) and 0 (difficult), which gets the value that `uncertain` sets.
    """

    format: Literal["voc"] = "voc"
    split: str = "trainval"
    classes: list[Text] | None = None
    uncertain: PolicyByLabel = "ignore"
    missing: PolicyByLabel | None = None


class PerClassLabels(LabelsSection):
    """One file per label with a positive id per line; `competition.train` lists all ids.

    `files` is a path relative to the root, with `{label}` in it.
    """

    format: Literal["per_class"] = "per_class"
    files: Annotated[str, Field(pattern=r"\{label\}")]
    classes: list[Text] | None = None


LABEL_FORMATS = ("wide", "delimited", "columns", "long", "coco", "voc", "per_class")


def _label_format(data: Any) -> str:
    found = data.get("format", "wide") if isinstance(data, Mapping) else getattr(data, "format", "wide")
    return str(found)


Labels = Annotated[
    Annotated[WideLabels, Tag("wide")]
    | Annotated[DelimitedLabels, Tag("delimited")]
    | Annotated[ColumnsLabels, Tag("columns")]
    | Annotated[LongLabels, Tag("long")]
    | Annotated[CocoLabels, Tag("coco")]
    | Annotated[VocLabels, Tag("voc")]
    | Annotated[PerClassLabels, Tag("per_class")],
    Discriminator(_label_format),
]
