"""Files to pixels: whole images or an `ImageError`, never half of one."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, NoReturn, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.competition.paths import ImagePaths
from pipeline.errors import ImageError, listing

Pixels: TypeAlias = NDArray[np.uint8]
Channels: TypeAlias = Literal[1, 3, 4]
Fit: TypeAlias = Literal["stretch", "crop", "pad"]
Size: TypeAlias = tuple[int, int]


class ImageForm(NamedTuple):
    """What a file is turned into: `size` (H, W), how it is brought to that size, and its channels."""

    size: Size
    fit: Fit
    channels: Channels

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (*self.size, self.channels)


# What OpenCV would print about a broken file, the ImageError says better.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_AGAIN = "copy or download the file again, or take its row out of the table"
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_JPEG_END, _PNG_END = b"\xff\xd9", b"IEND\xaeB`\x82"


def read_image(paths: ImagePaths, *, channels: Channels) -> Pixels:
    """Decode one image to (H, W, channels) uint8, RGB order, C-contiguous, EXIF orientation applied.

    Grey is replicated to RGB, RGB becomes grey by luma, palettes and CMYK become RGB. 16-bit samples are
    scaled over their full range, round(v / 257). `channels=4` appends the file's alpha, or 255 where it has
    none; only there the orientation tag of a file with alpha is not looked at.

    Raises:
        ImageError: the file is missing, empty, truncated, not an image, or has floating-point samples.
    """
    (path,) = paths
    data = _read_bytes(path)
    _require_whole(path, data)
    image = _decode(path, data, channels)
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.dtype != np.uint8:
        raise ImageError(
            f"image {path} has {image.dtype} samples",
            expected="8 or 16 bit integers",
            got=str(image.dtype),
            remedy="convert it to an 8-bit PNG: only you know which range of values is black to white",
        )
    return _to_rgb(np.asarray(image, np.uint8), channels)


def fit_image(image: Pixels, *, size: Size, fit: Fit) -> Pixels:
    """Bring (h, w, C) to (H, W, C), where size is (H, W).

    "stretch" ignores the aspect ratio; "crop" covers the size and cuts the centre; "pad" fits inside and pads
    evenly with zeros (an odd remainder goes below and to the right). Shrinking averages areas, enlarging is
    linear, each axis by its own rule.
    """
    if fit == "stretch":
        return _resize(image, size)
    if fit == "crop":
        return _cut_centre(_resize(image, _scaled(image, size, max)), size)
    if fit == "pad":
        return _pad_evenly(_resize(image, _scaled(image, size, min)), size)
    raise ValueError(f"expected fit to be one of stretch, crop, pad but got {fit!r}")


def load_image(paths: ImagePaths, form: ImageForm) -> Pixels:
    """`read_image`, then `fit_image`. Raises ImageError."""
    return fit_image(read_image(paths, channels=form.channels), size=form.size, fit=form.fit)


def check_images(
    paths: Sequence[ImagePaths], *, threads: int, progress: Callable[[int], None] | None = None
) -> list[str]:
    """One line per image that cannot be read, in the order of `paths`; empty when all is well.

    Quick, for before a long run: JPEG and PNG files must have a header that parses and an end marker, only
    the others are decoded. `progress` is called in this thread with the number of images done so far.
    """
    problems = []
    with ThreadPoolExecutor(threads) as pool:
        for done, problem in enumerate(pool.map(_problem, paths), start=1):
            problems += [problem] if problem is not None else []
            if progress is not None:
                progress(done)
    return problems


def require_images(paths: Sequence[ImagePaths], *, threads: int, progress: Callable[[int], None] | None = None) -> None:
    """`check_images`, as one `ImageError` that names the first bad files and counts the rest."""
    problems = check_images(paths, threads=threads, progress=progress)
    if problems:
        refuse_images(problems, len(paths))


def refuse_images(problems: Sequence[str], total: int) -> NoReturn:
    """Raise the one `ImageError` for all `problems` (a line each) found among `total` images."""
    raise ImageError(
        f"{len(problems)} of {total} images cannot be read",
        got=listing(problems),
        remedy="check the image folder and the table's ids; copy or download broken files again",
    )


def _read_bytes(path: Path) -> bytes:
    try:
        # Not cv2.imread, which cannot open a non-ASCII path on every system and does not say why it failed.
        data = path.read_bytes()
    except OSError as error:
        raise _cannot_open(path, error) from error
    if not data:
        raise ImageError(f"image {path} is empty", got="0 bytes", remedy=_AGAIN)
    return data


def _cannot_open(path: Path, error: OSError) -> ImageError:
    if isinstance(error, FileNotFoundError):
        remedy = "check the image folder, the file extension and the table's ids"
        return ImageError(f"image {path} does not exist", remedy=remedy)
    got = error.strerror or str(error)
    return ImageError(f"image {path} cannot be opened", got=got, remedy="check what it is and who may read it")


def _require_whole(path: Path, data: bytes) -> None:
    """Raise if `data` ends too early: some OpenCV versions would return the missing rest as grey or black."""
    if _has_end(data[:8], data[-8:]):
        return
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return  # not Pillow's to judge: the decoder has the last word
    except (OSError, SyntaxError) as error:
        raise ImageError(f"image {path} is truncated", got=str(error), remedy=_AGAIN) from error


def _has_end(head: bytes, tail: bytes) -> bool:
    """Whether a JPEG or PNG ends with its end marker; False for other kinds, which have none."""
    if head.startswith(_JPEG):
        return tail.endswith(_JPEG_END)
    return head.startswith(_PNG) and tail.endswith(_PNG_END)


def _decode(path: Path, data: bytes, channels: Channels) -> NDArray[np.generic]:
    """OpenCV's (H, W), (H, W, 3) BGR or (H, W, 4) BGRA in the file's own sample type."""
    buffer = np.frombuffer(data, np.uint8)
    colour = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
    image: NDArray[np.generic] | None = None
    try:
        if channels == 4:
            image = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
        if image is None or image.shape[2:] != (4,):
            image = cv2.imdecode(buffer, colour | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise _not_an_image(path, error.err) from error
    if image is None:
        raise _not_an_image(path, f"a file that begins with {data[:8]!r}")
    return image


def _not_an_image(path: Path, got: str) -> ImageError:
    expected = "a whole JPEG, PNG, WebP, BMP, GIF or TIFF"
    return ImageError(f"{path} is not an image that can be decoded", expected=expected, got=got, remedy=_AGAIN)


def _to_rgb(image: Pixels, channels: Channels) -> Pixels:
    if channels == 1:
        return image[:, :, np.newaxis]
    if channels == 3:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    has_alpha = image.shape[2] == 4
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if has_alpha else cv2.COLOR_BGR2RGBA), np.uint8)


def _resize(image: Pixels, size: Size) -> Pixels:
    height, width, channels = image.shape
    resized: NDArray[Any] = image
    # OpenCV's area mode does not average where the other axis is enlarged, so the axes that shrink go first.
    shrunk = (min(height, size[0]), min(width, size[1]))
    if shrunk != (height, width):
        resized = cv2.resize(resized, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if shrunk != size:
        resized = cv2.resize(resized, size[::-1], interpolation=cv2.INTER_LINEAR)
    return resized.reshape(*size, channels)  # cv2 drops the last axis of a grey image


def _scaled(image: Pixels, size: Size, choose: Callable[[float, float], float]) -> Size:
    """The size of `image` scaled by one factor, the smaller or larger of the two that meet `size`."""
    height, width = image.shape[:2]
    scale = choose(size[0] / height, size[1] / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _cut_centre(image: Pixels, size: Size) -> Pixels:
    top, left = ((have - want) // 2 for have, want in zip(image.shape[:2], size, strict=True))
    return np.ascontiguousarray(image[top : top + size[0], left : left + size[1]])


def _pad_evenly(image: Pixels, size: Size) -> Pixels:
    canvas = np.zeros((*size, image.shape[2]), np.uint8)
    top, left = ((want - have) // 2 for have, want in zip(image.shape[:2], size, strict=True))
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
    return canvas


def _problem(paths: ImagePaths) -> str | None:
    try:
        if not all(_looks_whole(path) for path in paths):
            read_image(paths, channels=3)
    except ImageError as error:
        return error.problem
    return None


def _looks_whole(path: Path) -> bool:
    """Whether a JPEG or PNG has a header that parses and its end marker; anything else is for the decoder."""
    try:
        with path.open("rb") as file:
            if not _has_end(*_ends(file)):
                return False
            file.seek(0)
            with Image.open(file) as image:
                return min(image.size) > 0
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return False


def _ends(file: BinaryIO) -> Iterator[bytes]:
    """The first and the last eight bytes."""
    yield file.read(8)
    file.seek(max(0, file.seek(0, io.SEEK_END) - 8))
    yield file.read(8)
