"""The ids of the images in a folder: `images.template`, applied backwards to the file names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from unicodedata import normalize

from pipeline.competition.csvs import refuse_unwritable
from pipeline.competition.paths import is_visible, split_extension
from pipeline.config.templates import Placeholder, parse_template
from pipeline.errors import CompetitionError


def ids_in_folders(
    folders: Sequence[Path], template: str, *, with_extension: bool, channels: Sequence[str] = ()
) -> tuple[str, ...]:
    """The ids of all image files below `folders` that `template` describes, each once, sorted.

    Args:
        folders: the template is relative to each of these.
        template: such as `test/{id}.jpg`, `{id:05d}.png`, `{id}_{channel}.png` or `test/{id}`.
        with_extension: whether ids hold the extension of their file; used if the template has none.
        channels: the possible texts of `{channel}`.

    Raises:
        CompetitionError: there is no such image.
    """
    pattern, wanted = _pattern(template, channels)
    whole_name = with_extension or bool(split_extension(template)[1])
    found = set()
    for root in folders:
        for path in glob(wanted, root_dir=root, include_hidden=True):
            name = normalize("NFC", Path(path).as_posix())
            stem, extension = split_extension(name) if is_visible(name) else (name, "")
            match = pattern.fullmatch(stem + extension if whole_name else stem) if extension else None
            found |= {_as_written(match["id"], template)} if match else set()
    if not found:
        raise CompetitionError(
            f"{', '.join(map(str, folders))}: there are no images to take ids from",
            expected=f"files such as {template}",
            remedy="give the folder of the test images with --images DIR, or correct competition.images",
        )
    refuse_unwritable(found, path=folders[0], kind="names of images")
    return tuple(sorted(found))


def has_image_extension(id_: str) -> bool:
    """Whether an id ends with the extension of an image file; ids may hold other dots."""
    return bool(split_extension(id_)[1])


def _pattern(template: str, channels: Sequence[str]) -> tuple[re.Pattern[str], str]:
    """A pattern for a file's path below its folder, with a group `id`, and a glob that finds all such files."""
    expression, wanted = "", ""
    for part in parse_template(template):
        if isinstance(part, str):
            expression += re.escape(part)
            wanted += re.sub(r"([*?[])", r"[\1]", part)
            continue
        wanted += "" if wanted.endswith("*") else "*"  # `**` would match folders
        expression += _group(part, channels, again="(?P<id>" in expression)
    open_end = not has_image_extension(template) and not wanted.endswith("*")
    return re.compile(expression), wanted + "*" * open_end


def _group(part: Placeholder, channels: Sequence[str], *, again: bool) -> str:
    if part.name == "id" and part.part is None:
        return "(?P=id)" if again else f"(?P<id>{'[0-9]+' if part.is_number else '[^/]+'})"
    if part.name == "channel" and channels:
        return f"(?:{'|'.join(map(re.escape, channels))})"
    return "[^/]*"


def _as_written(id_: str, template: str) -> str:
    """The id as the tables have it: without the zeros that a number format adds."""
    numbers = any(
        isinstance(part, Placeholder) and part.name == "id" and part.is_number for part in parse_template(template)
    )
    return str(int(id_)) if numbers else id_
