"""The rule from ids to the files of a folder, guessed from the names of both."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

from PIL import Image

from pipeline.competition.paths import is_elsewhere, is_visible, paths_from_template, split_extension
from pipeline.errors import CompetitionError, listing
from pipeline.machine import regular

_MOST = 0.5  # of the cells of a column lead to files


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
    columns: Mapping[str, Sequence[str]],
    files: Sequence[PurePosixPath],
    *,
    csv_folder: str,
    root: Path,
    in_test: Collection[str] = (),
) -> FileRule | None:
    """The rule by which most cells of one column lead to a file; None if at most half of the cells do in each column.

    Where several do, cells that do not repeat come first, then a column of paths that the test table has too, then a
    template, which also leads to test images.

    Args:
        columns: the cells of each column.
        files: all images, relative to `root`.
        csv_folder: the table's folder, relative to the root; "" for the root itself.
        root: the competition's root.
        in_test: the columns of the test table.
    """
    files = [PurePosixPath(normalize("NFC", str(file))) for file in files]  # as the cells are read
    rules = [rule for name, cells in columns.items() for rule in _rules(name, cells, files, csv_folder)]
    rules = [rule for rule in rules if rule.share > _MOST and (rule.channels == 1 or _are_grey(rule, columns, root))]

    def preference(rule: FileRule) -> tuple[float, float, int]:
        cells = columns[rule.column]
        by_column = "column" in rule.images
        way = 3 if by_column and rule.column in in_test else 1 if by_column else 2 * (rule.images["template"] != "{id}")
        return round(rule.share, 2), round(len({*cells}) / len(cells), 2), way

    return max(rules, key=preference, default=None)


def _are_grey(rule: FileRule, columns: Mapping[str, Sequence[str]], root: Path) -> bool:
    """Whether the files of a few images are grey: two colour photographs are not the channels of one image."""
    folders = [root / folder for folder in rule.images.get("folders", ["."])]
    ids = list(dict.fromkeys(columns[rule.column]))[:20]
    paths = paths_from_template(
        rule.images["template"], {"id": ids}, folders=folders, channels=rule.images["channel_files"]
    )
    return all(kind_of_image(path).startswith(("1", "L", "I", "F", "?")) for image in paths for path in image)


def kind_of_image(path: Path) -> str:
    """Pillow's name of the kind of pixels, such as RGB or L; ? if the file cannot be read."""
    try:
        with Image.open(regular(path)) as image:
            return image.mode
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return "?"


def _rules(name: str, cells: Sequence[str], files: Sequence[PurePosixPath], csv_folder: str) -> Iterable[FileRule]:
    """The possible rules, the preferred ones first."""
    known = {str(file) for file in files}
    values = [str(PurePosixPath(cell.replace("\\", "/"))) if cell else "" for cell in cells]
    beside = [f"{csv_folder}/{value}" if csv_folder else value for value in values]
    if any("/" in value for value in values):
        yield FileRule(name, {"column": name}, _share(known, beside))
        yield FileRule(name, {"template": "{id}"}, _share(known, values))
        if is_elsewhere(values[0]):  # only the tails of such paths are there
            last = [value.rpartition("/")[2] for value in values]
            folders = sorted({str(file.parent) for file in files if file.name in {*last}})
            yield FileRule(name, {"column": name, "folders": folders}, _share({file.name for file in files}, last))
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
