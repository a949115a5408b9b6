"""Groups of nearly equal images, joined with those of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import joblib
import numpy as np

from pipeline.competition.groups import connect, describe_groups, join_groups
from pipeline.competition.table import TrainTable
from pipeline.config import CompetitionConfig, Config, GroupImages
from pipeline.errors import ImageError, listing
from pipeline.events import ImageProgress, Listener, Note
from pipeline.images.geometry import image_form
from pipeline.images.image_stats import ImageStats, read_image_stats
from pipeline.images.near_duplicates import near_pairs


def with_image_groups(config: Config, table: TrainTable, listen: Listener) -> TrainTable:
    """The table with all groups that `competition.groups` asks for; a note describes them.

    Raises:
        ImageError: groups by images are asked for, and some images cannot be read.
    """
    stats: list[ImageStats] = []
    if any(isinstance(source, GroupImages) for source in config.competition.groups or ()):
        stats = read_image_stats(
            table.paths,
            image_form(config.images).reading,
            threads=joblib.cpu_count(),
            progress=lambda done: listen(ImageProgress("comparing images", done, len(table.paths))),
        )
    return group_table(config.competition, table, stats, listen)


def group_table(
    competition: CompetitionConfig, table: TrainTable, stats: Sequence[ImageStats], listen: Listener
) -> TrainTable:
    """As `with_image_groups`, from the statistics of the images."""
    if competition.groups is None:
        return table
    by_images = [source for source in competition.groups if isinstance(source, GroupImages)]
    if by_images:
        sources = [] if table.groups is None else [table.groups]
        near = near_groups(table.ids, stats, turned=any(source.turned for source in by_images))
        table = replace(table, groups=join_groups(table.ids, [*sources, near]))
    assert table.groups is not None
    listen(Note(describe_groups(table.groups, competition.groups)))
    return table


def near_groups(ids: Sequence[str], stats: Sequence[ImageStats], *, turned: bool) -> tuple[str, ...]:
    """The group of each row, named by its smallest id: images of equal bytes or nearly equal pixels share one.

    Raises:
        ImageError: some images cannot be read.
    """
    problems = [each.problem for each in stats if each.problem is not None]
    if problems:
        raise ImageError(
            f"groups by images need every image, and {len(problems)} of {len(stats)} cannot be read",
            got=listing(problems),
            remedy="copy or download them again, or take their rows out of the table",
        )
    pairs = near_pairs(np.stack([each.thumbnail for each in stats if each.thumbnail is not None]), turned=turned)
    return connect(ids, [[each.digest for each in stats]], links=np.stack([pairs.first, pairs.second], axis=1))
