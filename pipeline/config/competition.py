"""The section on the organisers' files, their formats and their metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator

from pipeline.config.folds import Groups
from pipeline.config.images import ImageFiles
from pipeline.config.labels import Labels, WideLabels
from pipeline.config.metric import MetricSpec
from pipeline.config.section import After, Section, Text


def _known_encoding(name: str) -> str:
    try:
        b" ".decode(name)
    except LookupError:
        raise ValueError("expected an encoding that Python knows, such as utf-8, latin-1 or cp949") from None
    except UnicodeError:  # one byte is half a character of utf-16
        pass
    return name


def _one_character(delimiter: str) -> str:
    if delimiter != "auto" and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise ValueError('expected auto or one character, such as ";" or "\\t"')
    return delimiter


class JoinedTable(Section):
    """A second CSV whose columns are added to the training table, by the key column `on` that both have."""

    file: str
    on: Text

    @model_validator(mode="before")
    @classmethod
    def _yaml_reads_on_as_true(cls, data: Any) -> Any:
        return (
            {"on" if key is True else key: value for key, value in data.items()} if isinstance(data, Mapping) else data
        )


class CompetitionConfig(Section):
    """The organisers' files, their formats and their metric."""

    root: Annotated[str, After] = "data/mine"
    builtin: Literal["digit_scenes"] | None = None
    train: str = "train.csv"
    header: list[Text] | None = None
    join: JoinedTable | None = None
    test: Annotated[str | None, After] = None
    sample_submission: Annotated[str | None, After] = "sample_submission.csv"
    id: Text = "id"
    sample_id: Annotated[Text | None, After] = None
    encoding: Annotated[Annotated[str, AfterValidator(_known_encoding)] | None, After] = None
    delimiter: Annotated[str, AfterValidator(_one_character), After] = "auto"
    quoting: Annotated[Literal["standard", "none"], After] = "standard"
    images: Annotated[ImageFiles, After] = ImageFiles()
    labels: Labels = WideLabels()
    exclude: str | list[Text] | None = None
    corrections: str | None = None
    groups: Groups | None = None
    metric: MetricSpec = "f1_macro"
    also: Annotated[list[MetricSpec], After] = []
