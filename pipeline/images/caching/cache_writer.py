"""Writes cache files row by row; an interrupted build continues where it stopped."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from pipeline.competition.paths import ImagePaths
from pipeline.errors import ImageError
from pipeline.images.caching.cache_format import RowFormat
from pipeline.images.check import refuse_images
from pipeline.images.decoding.decode import load_forms
from pipeline.images.geometry import ImageForm

Rows: TypeAlias = list[bytes | None]  # one image in each form; None: that file has the row already

_CHUNK = 64  # images in memory at once: enough to keep the threads busy
_SAVED_EVERY = 256  # rows: a kill costs no more


class CacheWriteError(OSError):
    """A cache file cannot be written."""


@contextlib.contextmanager
def _cache_write_errors() -> Iterator[None]:
    """Mark errors of the cache files, so that they differ from any other OSError, such as a closed terminal."""
    try:
        yield
    except OSError as error:
        raise CacheWriteError(*error.args) from error


class PartialCache:
    """The first rows of an incomplete cache file, and a second file with the number of rows that are on the disk.

    As a context manager it gives the file its final name at the end. When the process is killed or interrupted, both
    files stay for the next try. They are deleted when an image is bad, because the image must change first, and when
    the disk refuses a write. The caller must hold the lock of `file`.
    """

    def __init__(self, file: Path, form: ImageForm, row_format: RowFormat) -> None:
        self.form, self.row_format = form, row_format
        self.file, self.path, self.saved = file, file.with_suffix(".partial"), file.with_suffix(".partial.json")
        self._lengths: list[int] = []

    def __enter__(self) -> Self:
        self.path.touch()
        # Plain writes, not a writable map: a full disk is then an error here and not a bus error.
        self._stream = self.path.open("r+b")
        self.rows = self._saved_rows()
        if self.rows == 0:
            self.saved.unlink(missing_ok=True)  # its rows are gone, but would seem whole behind the new header
            self._stream.seek(0)
            self._stream.truncate()
            self._stream.write(self.row_format.header)
            self._stream.flush()
        self._stream.truncate(self.row_format.end_of(self._stream, self.rows))
        self._stream.seek(0, os.SEEK_END)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, ImageError | CacheWriteError):
            with contextlib.suppress(OSError):  # the interruption is raised, and the rows saved before stay valid
                self.save()
        with contextlib.suppress(OSError):  # a full disk refuses the last bytes again
            self._stream.close()
        if kind is None:
            self.path.replace(self.file)
        if kind is None or issubclass(kind, ImageError | CacheWriteError):
            for leftover in (self.path, self.saved, self._next_saved):
                leftover.unlink(missing_ok=True)

    def append(self, data: bytes) -> None:
        """Write the next row."""
        with _cache_write_errors():
            self._stream.write(data)
        self._lengths.append(len(data))
        if len(self._lengths) >= _SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Flush the rows to the disk, then write down their number."""
        with _cache_write_errors():
            self._save()

    def _save(self) -> None:
        lengths, self._lengths = self._lengths, []  # an interruption below may lose rows, but never count them twice
        self.row_format.write_ends(self._stream, self.rows, lengths)
        _flush(self._stream)
        self.rows += len(lengths)
        with self._next_saved.open("w") as stream:
            json.dump({"rows": self.rows}, stream)
            _flush(stream)
        self._next_saved.replace(self.saved)

    @property
    def _next_saved(self) -> Path:
        return self.saved.with_suffix(".new")

    def _saved_rows(self) -> int:
        """The number of saved rows; 0 where it is missing or broken, or larger than the file allows."""
        try:
            rows = int(json.loads(self.saved.read_text())["rows"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return 0
        length = self._stream.seek(0, os.SEEK_END)
        try:
            end = self.row_format.end_of(self._stream, rows)
            whole = rows >= 0 and length >= max(len(self.row_format.header), end)
        except ValueError:
            return 0
        return rows if whole else 0


def build(
    partials: Sequence[PartialCache],
    paths: Sequence[ImagePaths],
    *,
    threads: int,
    progress: Callable[[int], None] | None,
) -> None:
    """Complete `partials`, each with the images of `paths` in its form; every image is decoded once for all forms.

    Raises:
        ImageError: some images cannot be read; all of them are counted.
        CacheWriteError: a cache file cannot be written.
    """
    with contextlib.ExitStack() as stack:
        for partial in partials:
            stack.enter_context(partial)
        begin = min(partial.rows for partial in partials)
        problems: list[str] = []
        for row, encoded in enumerate(_load(partials, paths, begin, threads), start=begin):
            if isinstance(encoded, ImageError):
                problems.append(encoded.problem)
            elif not problems:  # after a bad image the rest is read only to find all others
                for partial, data in zip(partials, encoded, strict=True):
                    if data is not None:
                        partial.append(data)
            if progress is not None:
                progress(row + 1)
        refuse_images(problems, paths)
        for partial in partials:
            partial.save()


def _load(
    partials: Sequence[PartialCache], paths: Sequence[ImagePaths], begin: int, threads: int
) -> Iterator[Rows | ImageError]:
    """The images from row `begin` on, decoded, fitted and encoded."""
    starts = [partial.rows for partial in partials]  # a copy: `rows` grows while this runs

    def load(row: int) -> Rows | ImageError:
        wanted = [partial for partial, start in zip(partials, starts, strict=True) if start <= row]
        try:
            images = iter(load_forms(paths[row], [partial.form for partial in wanted]))
        except ImageError as error:
            return error
        return [
            partial.row_format.encode(next(images)) if start <= row else None
            for partial, start in zip(partials, starts, strict=True)
        ]

    with ThreadPoolExecutor(threads) as pool:
        for start in range(begin, len(paths), _CHUNK):
            yield from pool.map(load, range(start, min(start + _CHUNK, len(paths))))


def _flush(stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())
