"""The rule from ids to the files of a folder, guessed from the names of both."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.competition.paths import is_visible, split_extension
from pipeline.errors import CompetitionError, listing


@dataclass(frozen=True)
class FileRule:
    """A rule from the cells of a column to files.

    Attributes:
        column: its name.
        images: the section `competition.images`.
        share: the share of cells that lead to a file.
        channels: files per image.
    """

    column: str
    images: dict[str, Any]
    share: float
    channels: int = 1


def image_files(folder: Path, root: Path) -> list[PurePosixPath]:
    """All image files below `folder`, relative to `root`, sorted. Raises CompetitionError if there are none."""
    found = [
        PurePosixPath(os.path.relpath(Path(where) / name, root).replace(os.sep, "/"))
        for where, _, names in os.walk(folder)
        for name in names
        if split_extension(name)[1] and is_visible(os.path.relpath(Path(where) / name, folder))
    ]
    if not found:
        raise CompetitionError(f"{folder}: there are no images in this folder", remedy="give the folder of the images")
    return sorted(found)


def guess_file_rule(
    columns: Mapping[str, Sequence[str]], files: Sequence[PurePosixPath], *, csv_folder: str
) -> FileRule | None:
    """The rule by which most cells of one column lead to a file; None if at most half of the cells do in each column.

    Args:
        columns: the cells of each column.
        files: all images, relative to the competition's root.
        csv_folder: the table's folder, relative to the root; "" for the root itself.
    """
    rules = [rule for name, cells in columns.items() for rule in _rules(name, cells, files, csv_folder)]
    best = max(rules, key=lambda rule: rule.share, default=None)
    return best if best is not None and best.share > 0.5 else None


def _rules(name: str, cells: Sequence[str], files: Sequence[PurePosixPath], csv_folder: str) -> Iterable[FileRule]:
    """The possible rules, the preferred ones first."""
    known = {str(file) for file in files}
    values = [str(PurePosixPath(cell.replace("\\", "/"))) if cell else "" for cell in cells]
    beside = [f"{csv_folder}/{value}" if csv_folder else value for value in values]
    if any("/" in value for value in values):
        yield FileRule(name, {"column": name}, _share(known, beside))
        yield FileRule(name, {"template": "{id}"}, _share(known, values))
        return
    names, stems = {file.name for file in files}, {split_extension(file.name)[0] for file in files}
    yield FileRule(name, _in_folders(files, "{id}", values), _share(names, values))
    yield FileRule(name, _in_folders(files, "{id}" + _extension(files), values), _share(stems, values))
    yield from _numbered(name, values, files, stems)
    yield from _channels(name, values, files, stems)


def _share(known: Iterable[str], values: Sequence[str]) -> float:
    there = set(known)
    return sum(value in there for value in values) / max(1, len(values))


def _extension(files: Sequence[PurePosixPath]) -> str:
    """The extension that all files share, or "": it is then looked up for each file."""
    found = {split_extension(file.name)[1] for file in files}
    return found.pop() if len(found) == 1 else ""


def _in_folders(files: Sequence[PurePosixPath], template: str, values: Sequence[str]) -> dict[str, Any]:
    wanted = set(values)
    folders = sorted({str(file.parent) for file in files if {file.name, split_extension(file.name)[0]} & wanted})
    if len(folders) == 1:
        return {"template": template if folders[0] == "." else f"{folders[0]}/{template}"}
    return {"template": template, "folders": folders}


def _numbered(name: str, values: Sequence[str], files: Sequence[PurePosixPath], stems: set[str]) -> Iterable[FileRule]:
    widths = {len(stem) for stem in stems if stem.isdecimal()}
    if len(widths) == 1 and all(value.isdecimal() for value in values):
        (width,) = widths
        padded = [value.zfill(width) for value in values]
        template = f"{{id:0{width}d}}{_extension(files)}"
        yield FileRule(name, _in_folders(files, template, padded), _share(stems, padded))


def _channels(name: str, values: Sequence[str], files: Sequence[PurePosixPath], stems: set[str]) -> Iterable[FileRule]:
    wanted = set(values)
    pairs = [(stem.rpartition("_")[0], stem.rpartition("_")[2]) for stem in stems]
    ends = Counter(end for start, end in pairs if start in wanted)
    channels = [end for end in ("red", "green", "blue", "yellow") if end in ends]
    channels += sorted(end for end in ends if end not in channels)
    if not 2 <= len(channels) <= 16:
        return
    full = [value for value in values if all(f"{value}_{channel}" in stems for channel in channels)]
    stemmed = [f"{value}_{channel}" for value in full for channel in channels]
    images = _in_folders(files, "{id}_{channel}" + _extension(files), stemmed)
    yield FileRule(name, {**images, "channel_files": channels}, len(full) / max(1, len(values)), len(channels))


def describe_rule(rule: FileRule, rows: int) -> str:
    """A sentence with the evidence for a rule."""
    found = round(rule.share * rows)
    where = rule.images.get("template", "the paths it holds")
    folders = f" in {listing(rule.images['folders'])}" if "folders" in rule.images else ""
    return f"images: {found} of {rows} cells of '{rule.column}' lead to a file by {where}{folders}"
