"""From ids to image files: a CSV column with relative paths, or a template with `{id}`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from pipeline.competition.csvs import column_of, refuse_blank
from pipeline.config import CompetitionConfig
from pipeline.errors import CompetitionError

ImagePaths: TypeAlias = tuple[Path, ...]  # the file of one image, or one file for each of its channels

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def image_paths(
    competition: CompetitionConfig, frame: pd.DataFrame, path: Path, *, test: bool
) -> tuple[ImagePaths, ...]:
    """The files of each row of `frame`, the table read from `path`, as `competition.images` says."""
    images = competition.images
    if images.template is None:
        assert images.column is not None  # the schema holds exactly one of the two
        values = column_of(frame, images.column, path=path, key="competition.images.column")
        refuse_blank(values, frame[competition.id].tolist(), path=path, column=images.column)
        return paths_from_column(values, csv=path)
    template = images.test_template if test and images.test_template is not None else images.template
    return paths_from_template(frame[competition.id].tolist(), template=template, root=Path(competition.root))


def paths_from_column(values: Sequence[str], *, csv: Path) -> tuple[ImagePaths, ...]:
    """The files that a column of `csv` names, relative to that CSV's own folder; a leading `./` is fine."""
    return tuple((csv.parent / value,) for value in values)


def paths_from_template(ids: Sequence[str], *, template: str, root: Path) -> tuple[ImagePaths, ...]:
    """`root` / `template` with `{id}` replaced by each id as it stands, dots and zeros included.

    Raises:
        CompetitionError: the template adds an image extension to ids that already end with one, and the
            first file does not exist under the doubled name.
    """
    paths = tuple((root / template.replace("{id}", id_),) for id_ in ids)
    doubled = template.lower().endswith(IMAGE_EXTENSIONS) and template.rpartition("{id}")[2].startswith(".")
    if paths and doubled and ids[0].lower().endswith(IMAGE_EXTENSIONS) and not paths[0][0].exists():
        raise CompetitionError(
            f"the image template '{template}' adds an extension that the ids already hold",
            expected=f"a file such as {root / template.rpartition('.')[0].replace('{id}', ids[0])}",
            got=str(paths[0][0]),
            remedy=f"write the template as '{template.rpartition('.')[0]}'",
        )
    return paths
