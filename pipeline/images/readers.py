"""Image sources: decode a file, or read a row of a cache file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.competition.paths import ImagePaths
from pipeline.errors import ImageError
from pipeline.images.caching.cache_format import open_jpegs, open_pixels
from pipeline.images.decoding.decode import load_image
from pipeline.images.geometry import ImageForm, Pixels


class ImageSource(Protocol):
    """Images in one form, by row."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the form."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Pixels:
        """A new uint8 array, which the caller may change: (H, W, C), or smaller where the form is bound."""


class ImageSources(NamedTuple):
    """The same N images in two forms: `train` for the augmentation, `evaluation` at the training size.

    Where the forms are equal, both are one object.
    """

    train: ImageSource
    evaluation: ImageSource


def _damaged(file: Path, index: int) -> ImageError:
    return ImageError(
        f"the cache {file} is damaged in row {index}",
        remedy=f"delete it, and the same command builds it again: rm {shlex.quote(str(file))}",
    )


class DecodedSource:
    """Images decoded from their files at every load."""

    def __init__(self, paths: Sequence[ImagePaths], form: ImageForm) -> None:
        self._paths, self._form = list(paths), form

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the form."""
        return self._form.shape

    def __len__(self) -> int:
        return len(self._paths)

    def load(self, index: int) -> Pixels:
        """Decode row `index`. Raises ImageError if the file cannot be read."""
        return load_image(self._paths[index], self._form)


class CachedSource:
    """Images copied from a cache of raw pixels; pickled as a file name, without pixels."""

    def __init__(self, file: Path) -> None:
        self._file, rows = file, open_pixels(file)
        self._sizes, pixels = rows["size"], np.asarray(rows["pixels"])
        _, height, width, channels = pixels.shape
        self._shape, self._pixels = (height, width, channels), pixels.reshape(len(rows), -1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the form."""
        return self._shape

    def __len__(self) -> int:
        return len(self._pixels)

    def load(self, index: int) -> Pixels:
        """A copy of row `index`."""
        height, width = map(int, self._sizes[index])
        channels = self._shape[2]
        if not 0 < height * width * channels <= self._pixels.shape[1]:
            raise _damaged(self._file, index)
        return self._pixels[index, : height * width * channels].reshape(height, width, channels).copy()

    def __reduce__(self) -> tuple[Any, ...]:
        """The other process maps the same file."""
        return CachedSource, (self._file,)


class MapSource:
    """Feature maps copied from a file (N, h, w, D) of float16; pickled as a file name."""

    def __init__(self, file: Path) -> None:
        self._file, self._maps = file, np.load(file, mmap_mode="r")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, D)."""
        height, width, channels = self._maps.shape[1:]
        return height, width, channels

    def __len__(self) -> int:
        return len(self._maps)

    def load(self, index: int) -> NDArray[Any]:
        """A copy of row `index`, (h, w, D)."""
        return np.array(self._maps[index])

    def __reduce__(self) -> tuple[Any, ...]:
        """The other process maps the same file."""
        return MapSource, (self._file,)


class JpegSource:
    """Images decoded from a cache of JPEGs; pickled as a file name."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._shape, self._ends, self._data = open_jpegs(file)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the form."""
        return self._shape

    def __len__(self) -> int:
        return len(self._ends)

    def load(self, index: int) -> Pixels:
        """Decode row `index`."""
        start = int(self._ends[index - 1]) if index else 0
        data = self._data[start : int(self._ends[index])]
        grey = self._shape[2] == 1
        image = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
        if image is None:
            raise _damaged(self._file, index)
        pixels = image if grey else cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
        return np.atleast_3d(np.asarray(pixels, np.uint8))

    def __reduce__(self) -> tuple[Any, ...]:
        """The other process maps the same file."""
        return JpegSource, (self._file,)
