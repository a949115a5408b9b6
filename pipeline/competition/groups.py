"""Which rows belong together: groups that no fold may split."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.competition.csvs import column_of, refuse_blank
from pipeline.config import CompetitionConfig


def read_groups(competition: CompetitionConfig, frame: pd.DataFrame, path: Path) -> tuple[str, ...] | None:
    """The group of each row of `frame`, the training table read from `path`; None where none are configured.

    Raises:
        CompetitionError: there is no such column, or a row has no group.
    """
    if competition.groups is None:
        return None
    groups = column_of(frame, competition.groups.column, path=path, key="competition.groups.column")
    refuse_blank(groups, frame[competition.id].tolist(), path=path, column=competition.groups.column)
    return tuple(groups)
