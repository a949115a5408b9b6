"""Checks before a long run that all images exist and are whole; by headers where these are enough."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from pipeline.competition.paths import ImagePaths, nearest_file
from pipeline.errors import ImageError, listing
from pipeline.images.decoding.decode import has_end, read_image
from pipeline.images.geometry import ImageForm, Size
from pipeline.machine import regular


def check_images(
    paths: Sequence[ImagePaths],
    form: ImageForm,
    *,
    threads: int,
    decode: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[str | None]:
    """The problem of each image, None for a good one, in the order of `paths`.

    JPEG and PNG files must have a valid header and an end marker; only other files are decoded.

    Args:
        paths: the files of N images.
        form: how they are read.
        threads: that read at the same time.
        decode: decode every image, which is slow and finds more.
        progress: called in this thread with the number of images done so far.
    """

    def problem(image: ImagePaths) -> str | None:
        try:
            if decode or not _seem_whole(image, form.max_pixels):
                read_image(image, form.reading)
        except ImageError as error:
            return f"{error.problem}: {error.remedy}" if "images." in error.remedy else error.problem
        return None

    problems = []
    with ThreadPoolExecutor(threads) as pool:
        for done, found in enumerate(pool.map(problem, paths), start=1):
            problems.append(found)
            if progress is not None:
                progress(done)
    return problems


def require_images(
    paths: Sequence[ImagePaths],
    form: ImageForm,
    *,
    threads: int,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Check all images; raises one `ImageError` that names the first bad ones and counts the rest."""
    problems = check_images(paths, form, threads=threads, progress=progress)
    refuse_images([problem for problem in problems if problem is not None], paths)


def refuse_images(problems: Sequence[str], paths: Sequence[ImagePaths]) -> None:
    """Raise one `ImageError` for the `problems` (a line each) of the images of `paths`, if there are any."""
    if not problems:
        return
    missing = next((path for image in paths for path in image if not path.exists()), None)
    raise ImageError(
        f"{len(problems)} of {len(paths)} images cannot be read",
        got=listing(problems),
        remedy="check the image folder and the table's ids; copy or download broken files again"
        + ("" if missing is None else f"\n  {nearest_file(missing)}"),
    )


def _seem_whole(paths: ImagePaths, max_pixels: int) -> bool:
    """Whether all files are JPEG or PNG with a valid header and an end marker, of one size within the limit."""
    sizes = {_size_of_whole(path) for path in paths}
    return len(sizes) == 1 and all(size is not None and size[0] * size[1] <= max_pixels for size in sizes)


def _size_of_whole(path: Path) -> Size | None:
    """The size of a whole JPEG or PNG by its header; None for anything else, which must be decoded."""
    try:
        with regular(path).open("rb") as file:
            if not has_end(*_ends(file)):
                return None
            file.seek(0)
            with Image.open(file) as image:
                return (image.height, image.width) if min(image.size) > 0 else None
    except Exception:  # noqa: BLE001 (Pillow's parsers raise errors of any type on damaged files)
        return None


def _ends(file: BinaryIO) -> Iterator[bytes]:
    """The first and the last eight bytes."""
    yield file.read(8)
    file.seek(max(0, file.seek(0, io.SEEK_END) - 8))
    yield file.read(8)
