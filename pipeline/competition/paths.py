"""From ids to image files: by a CSV column or a template, in one or more folders, with or without extensions."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import TypeAlias
from unicodedata import normalize

import pandas as pd

from pipeline.competition.csvs import column_of, refuse_blank
from pipeline.config import CompetitionConfig
from pipeline.config.templates import Placeholder, columns_of, parse_template
from pipeline.errors import CompetitionError, listing

ImagePaths: TypeAlias = tuple[Path, ...]  # the file of one image, or one file for each of its channels

# If a folder has an image with several extensions, the first of these is used.
IMAGE_EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"),
    *(".jfif", ".jpe", ".jp2", ".avif", ".ppm", ".pgm", ".pbm", ".pnm"),
)
_ELSEWHERE = re.compile(r"([A-Za-z]:)?/|\.\./")


def image_paths(
    competition: CompetitionConfig, frame: pd.DataFrame, path: Path, *, test: bool
) -> tuple[ImagePaths, ...]:
    """The image files of each row of `frame`, the table read from `path`, as `competition.images` describes.

    A name is looked up in each folder in turn: first unchanged, then in another Unicode form or with other blanks
    around it, then with any other image extension. Of absolute paths that are not there, such as those of another
    machine, the longest tail that is there counts. A file that is nowhere gets its name in the first folder; the error
    follows when the image is read.

    Raises:
        CompetitionError: a column is missing or has blank cells, a template does not fit the ids.
    """
    images, root = competition.images, Path(competition.root)
    folders = image_folders(competition, test=test)
    if images.template is None:
        assert images.column is not None  # the schema holds exactly one of the two
        column, key = images.column, "competition.images.column"
        if test and images.test_column is not None:
            column, key = images.test_column, "competition.images.test_column"
        values = column_of(frame, column, path=path, key=key)
        refuse_blank(values, frame[competition.id].tolist(), path=path, column=column)
        names = [value.replace("\\", "/") for value in values]
        return tuple((found,) for found in _find(names, folders or [path.parent]))
    template = images.test_template if test and images.test_template is not None else images.template
    columns = {
        name: column_of(frame, name, path=path, key="competition.images.template") for name in _columns(template)
    }
    columns["id"] = frame[competition.id].tolist()
    return paths_from_template(template, columns, folders=folders or [root], channels=images.channel_files)


def image_folders(competition: CompetitionConfig, *, test: bool) -> list[Path]:
    """The folders in the config, with patterns expanded; may be empty."""
    images = competition.images
    wanted = images.test_folders if test and images.test_folders is not None else images.folders
    return _folders(Path(competition.root), wanted)


def paths_from_template(
    template: str,
    columns: Mapping[str, Sequence[str]],
    *,
    folders: Sequence[Path],
    channels: Sequence[str] = (),
) -> tuple[ImagePaths, ...]:
    """The files that a template names for each row.

    Args:
        template: as `parse_template` reads it; `{channel}` stands for each of `channels`.
        columns: the cells of each placeholder; `id` always.
        folders: at least one, searched in turn.
        channels: one file per image and channel, in this order; empty for one file per image.

    Raises:
        CompetitionError: the template needs numbers and a cell is none, or the template adds an image extension to ids
            that end with one already, and there is no first file with the doubled extension.
    """
    count = len(columns["id"])
    each = []
    for channel in channels or [""]:
        names = fill_template(template, {**columns, "channel": [channel] * count}, count)
        _refuse_doubled_extension(template, columns["id"], names, folders[0])
        each.append(_find(names, folders))
    return tuple(zip(*each, strict=True))


def fill_template(template: str, columns: Mapping[str, Sequence[str]], count: int) -> list[str]:
    """The template filled for each of `count` rows; `columns` holds the cells of each placeholder.

    Raises:
        CompetitionError: a placeholder needs numbers, and some cells are none.
    """
    filled = [
        [part] * count if isinstance(part, str) else _fill(part, columns[part.name])
        for part in parse_template(template)
    ]
    return ["".join(row) for row in zip(*filled, strict=True)]


def moved_to(folder: Path, paths: Sequence[ImagePaths]) -> tuple[ImagePaths, ...]:
    """The files of the same names in `folder`, with any image extension."""
    channels = [_find([path.name for path in files], [folder]) for files in zip(*paths, strict=True)]
    return tuple(zip(*channels, strict=True))


def nearest_file(path: Path) -> str:
    """A sentence on the files in the folder of the missing `path`."""
    names = sorted(_listing(path.parent))
    if not names:
        words = "is empty" if path.parent.is_dir() else "does not exist"
        return f"the folder {path.parent} {words}"
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.0)
    return f"the file nearest to {path.name} in {path.parent} is {close[0]}"


def _fill(place: Placeholder, cells: Sequence[str]) -> list[str]:
    texts = [cell if place.part is None else cell[place.part] for cell in cells]
    if not place.is_number:
        return [format(text, place.spec) for text in texts]
    wrong = [text for text in texts if not re.fullmatch(r"\s*[-+]?[0-9]{1,999}\s*", text)]
    if wrong:
        raise CompetitionError(
            f"the image template needs numbers for {{{place.name}:{place.spec}}}, but {len(wrong)} values are none",
            expected="whole numbers",
            got=listing(wrong),
            remedy=f"write {{{place.name}}} in competition.images.template, or correct the column",
        )
    return [format(int(text), place.spec) for text in texts]


def _columns(template: str) -> list[str]:
    return [name for name in columns_of(template) if name not in ("id", "channel")]


def _folders(root: Path, patterns: Sequence[str]) -> list[Path]:
    """The folders of all `patterns`, in this order; the folders of one pattern are sorted."""
    found: list[Path] = []
    for pattern in patterns:
        names = glob(pattern, root_dir=root, include_hidden=True, recursive=True) if "*" in pattern else []
        found += sorted(root / name for name in names if (root / name).is_dir()) or [root / pattern]
    return found


def _find(names: Sequence[str], folders: Sequence[Path]) -> list[Path]:
    """Each name's file in the first folder that has it. Lists each folder once: a look-up per id on disk is slow."""
    listings: dict[str, _Listing] = {}
    starts = [f"{folder}/" for folder in folders]

    def looked_up(name: str) -> Path | None:
        for start in starts:
            where, _, file = (name if name.startswith("/") else start + name).rpartition("/")
            where = where or "/"
            if where not in listings:
                listings[where] = _Listing(where)
            found = listings[where].find(file)
            if found is not None:
                return Path(listings[where].folder, found)
        return None

    files = [looked_up(name) for name in names]
    elsewhere = [name for name, file in zip(names, files, strict=True) if file is None and is_elsewhere(name)]
    if elsewhere:  # such paths were written on another machine
        kept = _best_tail(elsewhere, looked_up)
        files = [
            looked_up(_tail(name, kept)) if file is None and is_elsewhere(name) else file
            for name, file in zip(names, files, strict=True)
        ]
    return [folders[0] / name if file is None else file for name, file in zip(names, files, strict=True)]


def _best_tail(names: Sequence[str], looked_up: Callable[[str], Path | None]) -> int:
    """The number of first parts of a path without which most files are found; the smallest such number."""
    few = names[:: -(-len(names) // 200)]
    deepest = max(name.count("/") for name in names)
    return max(
        range(1, deepest + 1), key=lambda cut: (len({looked_up(_tail(name, cut)) for name in few} - {None}), -cut)
    )


def _tail(name: str, cut: int) -> str:
    return name.split("/", cut)[-1]


class _Listing:
    """The names in one folder; none if the folder does not exist."""

    def __init__(self, folder: str) -> None:
        self.folder = folder if os.path.isdir(folder) else _other_spelling(folder)
        self._names = _listing(Path(self.folder))
        self._by_stem: dict[str, list[str]] | None = None
        self._plain: dict[str, str] = {}

    def find(self, name: str) -> str | None:
        """The file with this name, in any Unicode form and with any blanks around it, or with any image extension."""
        if name in self._names:
            return name
        if self._by_stem is None:
            self._by_stem = {}
            for known in sorted(filter(is_visible, self._names), key=_rank):
                self._plain.setdefault(_plain(known), known)
                stem, extension = split_extension(known.rstrip())
                if extension:
                    self._by_stem.setdefault(_plain(stem), []).append(known)
        if _plain(name) in self._plain:
            return self._plain[_plain(name)]
        found = self._by_stem.get(_plain(split_extension(name.rstrip())[0]))
        return found[0] if found else None


def _plain(name: str) -> str:
    return normalize("NFC", name).strip()


def _other_spelling(folder: str) -> str:
    """The folder whose names are spelled in another Unicode form, or the same text if there is none."""
    start, _, name = folder.rpartition("/")
    if not start or not name:
        return folder
    parent = start if os.path.isdir(start) else _other_spelling(start)
    found = [known for known in sorted(_listing(Path(parent))) if _plain(known) == _plain(name)]
    return f"{parent}/{found[0]}" if found else folder


def is_elsewhere(path: str) -> bool:
    """Whether a path is absolute or leads upwards: on another machine only its tail is right."""
    return _ELSEWHERE.match(path) is not None


def is_visible(path: str) -> bool:
    """Whether no part of a path is hidden: a Mac leaves `._a.jpg` and `__MACOSX/a.jpg` beside the image a.jpg."""
    return not any(part == "__MACOSX" or (part.startswith(".") and part.strip(".")) for part in path.split("/"))


def split_extension(name: str) -> tuple[str, str]:
    """(stem, extension); the extension is "" unless it is an image extension, in any case: ids may hold dots."""
    stem, dot, ending = name.rpartition(".")
    return (stem, dot + ending) if stem and f".{ending.lower()}" in IMAGE_EXTENSIONS else (name, "")


def _rank(name: str) -> tuple[int, str]:
    extension = split_extension(name)[1].lower()
    return (IMAGE_EXTENSIONS.index(extension) if extension else len(IMAGE_EXTENSIONS), name)


def _listing(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return set()


def _refuse_doubled_extension(template: str, ids: Sequence[str], names: Sequence[str], folder: Path) -> None:
    shorter, extension = split_extension(template)
    if not (ids and extension and shorter.endswith("{id}") and split_extension(ids[0])[1]):
        return
    if (folder / names[0]).exists():
        return
    raise CompetitionError(
        f"the image template '{template}' adds an extension that the ids already hold",
        expected=f"a file such as {folder / names[0].removesuffix(extension)}",
        got=str(folder / names[0]),
        remedy=f"write the template as '{shorter}'",
    )
