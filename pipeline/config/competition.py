"""What the organisers hand out and ask for."""

from __future__ import annotations

from typing import Annotated, Literal

from pipeline.config.folds import GroupColumn
from pipeline.config.images import ImageFiles
from pipeline.config.labels import Labels, WideLabels
from pipeline.config.section import After, Section


class CompetitionConfig(Section):
    """What the organisers hand out and ask for."""

    root: Annotated[str, After] = "data/mine"
    builtin: Literal["digit_scenes"] | None = None
    train: str = "train.csv"
    test: Annotated[str | None, After] = None
    sample_submission: Annotated[str | None, After] = "sample_submission.csv"
    id: str = "id"
    images: Annotated[ImageFiles, After] = ImageFiles()
    labels: Labels = WideLabels()
    groups: GroupColumn | None = None
    metric: str = "f1_macro"
