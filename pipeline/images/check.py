"""Are all images there and whole? Asked before a long run, of headers where they tell."""

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


def check_images(
    paths: Sequence[ImagePaths],
    form: ImageForm,
    *,
    threads: int,
    decode: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[str | None]:
    """What is wrong with each image, None for nothing, in the order of `paths`.

    Quick, for before a long run: JPEG and PNG files must have a header that parses and an end marker, only
    the others are decoded.

    Args:
        paths: the files of N images.
        form: how they are to be read.
        threads: that read at the same time.
        decode: decode every image, which is slow and finds what only decoding can.
        progress: called in this thread with the number of images done so far.
    """

    def problem(image: ImagePaths) -> str | None:
        try:
            if decode or not _look_whole(image):
                channels, window, alpha = form.reading
                read_image(image, channels=channels, window=window, alpha=alpha)
        except ImageError as error:
            return error.problem
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
    """`check_images`, as one `ImageError` that names the first bad images and counts the rest."""
    problems = check_images(paths, form, threads=threads, progress=progress)
    refuse_images([problem for problem in problems if problem is not None], paths)


def refuse_images(problems: Sequence[str], paths: Sequence[ImagePaths]) -> None:
    """Raise one `ImageError` for all `problems` (a line each) found among the images of `paths`, if there are any."""
    if not problems:
        return
    missing = next((path for image in paths for path in image if not path.exists()), None)
    raise ImageError(
        f"{len(problems)} of {len(paths)} images cannot be read",
        got=listing(problems),
        remedy="check the image folder and the table's ids; copy or download broken files again"
        + ("" if missing is None else f"\n  {nearest_file(missing)}"),
    )


def _look_whole(paths: ImagePaths) -> bool:
    """Whether all files are JPEG or PNG with a header that parses and an end marker, and of one size."""
    sizes = {_size_of_whole(path) for path in paths}
    return len(sizes) == 1 and None not in sizes


def _size_of_whole(path: Path) -> Size | None:
    """The size that the header of a whole JPEG or PNG tells; None for anything else, which is for the decoder."""
    try:
        with path.open("rb") as file:
            if not has_end(*_ends(file)):
                return None
            file.seek(0)
            with Image.open(file) as image:
                return (image.height, image.width) if min(image.size) > 0 else None
    except Exception:  # noqa: BLE001 (Pillow's parsers raise whatever a damaged file makes them)
        return None


def _ends(file: BinaryIO) -> Iterator[bytes]:
    """The first and the last eight bytes."""
    yield file.read(8)
    file.seek(max(0, file.seek(0, io.SEEK_END) - 8))
    yield file.read(8)
