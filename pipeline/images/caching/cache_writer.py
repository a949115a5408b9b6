"""A cache file in the making: row by row, and an interrupted build goes on where it stopped."""

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
from pipeline.images.caching.cache_format import Packing
from pipeline.images.check import refuse_images
from pipeline.images.decoding.decode import load_forms
from pipeline.images.geometry import ImageForm

Packed: TypeAlias = list[bytes | None]  # one image in each form; None: that file has the row already

_CHUNK = 64  # images in memory at once: enough to keep the threads busy
_SAVED_EVERY = 256  # rows: what a kill costs at most


class DiskRefusesError(OSError):
    """A cache file cannot be written on."""


@contextlib.contextmanager
def _refused_by_disk() -> Iterator[None]:
    """Tell errors of the files here from those of anything else, such as a closed terminal."""
    try:
        yield
    except OSError as error:
        raise DiskRefusesError(*error.args) from error


class Partial:
    """The complete rows of `file` so far, in a file of their own, and beside it a note of how many are safe.

    A context. What is in it stays for the next try when the process is killed or interrupted; it is removed
    when an image is bad, which must change before it can be read, and when the disk refuses to take more.
    Only who holds the lock of `file` may open it.
    """

    def __init__(self, file: Path, form: ImageForm, packing: Packing) -> None:
        self.form, self.packing = form, packing
        self.file, self.path, self.note = file, file.with_suffix(".partial"), file.with_suffix(".partial.json")
        self._lengths: list[int] = []

    def __enter__(self) -> Self:
        self.path.touch()
        # Plain writes, not a writable map: a full disk is then an error here and not a bus error.
        self._stream = self.path.open("r+b")
        self.rows = self._safe_rows()
        if self.rows == 0:
            self.note.unlink(missing_ok=True)  # it may tell of rows that the next header would make seem whole
            self._stream.seek(0)
            self._stream.truncate()
            self._stream.write(self.packing.header)
            self._stream.flush()
        self._stream.truncate(self.packing.end_of(self._stream, self.rows))
        self._stream.seek(0, os.SEEK_END)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, ImageError | DiskRefusesError):
            with contextlib.suppress(OSError):  # the last note still holds, and the interruption is what counts
                self.save()
        with contextlib.suppress(OSError):  # of what a full disk would not take
            self._stream.close()
        if kind is None:
            self.path.replace(self.file)
        if kind is None or issubclass(kind, ImageError | DiskRefusesError):
            self.path.unlink(missing_ok=True)
            for leftover in (self.note, self._next_note):
                leftover.unlink(missing_ok=True)

    def append(self, data: bytes) -> None:
        """Add the next row."""
        with _refused_by_disk():
            self._stream.write(data)
        self._lengths.append(len(data))
        if len(self._lengths) >= _SAVED_EVERY:
            self.save()

    def save(self) -> None:
        """Flush the rows to the disk, then note how many they are."""
        with _refused_by_disk():
            self._save()

    def _save(self) -> None:
        lengths, self._lengths = self._lengths, []  # an interruption below may lose rows, but never count them twice
        self.packing.note(self._stream, self.rows, lengths)
        _flush(self._stream)
        self.rows += len(lengths)
        with self._next_note.open("w") as stream:
            json.dump({"rows": self.rows}, stream)
            _flush(stream)
        self._next_note.replace(self.note)

    @property
    def _next_note(self) -> Path:
        return self.note.with_suffix(".new")

    def _safe_rows(self) -> int:
        """As the note says; 0 where it is missing, or says more than there is."""
        try:
            rows = int(json.loads(self.note.read_text())["rows"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        length = self._stream.seek(0, os.SEEK_END)
        try:
            whole = rows >= 0 and length >= max(len(self.packing.header), self.packing.end_of(self._stream, rows))
        except ValueError:
            return 0
        return rows if whole else 0


def build(
    partials: Sequence[Partial],
    paths: Sequence[ImagePaths],
    *,
    threads: int,
    progress: Callable[[int], None] | None,
) -> None:
    """Finish the files of `partials`, each with the images of `paths` in its form; a file is decoded once for all.

    Raises:
        ImageError: some images cannot be read: all of them are counted.
        DiskRefusesError: a file cannot be written on.
    """
    with contextlib.ExitStack() as stack:
        for partial in partials:
            stack.enter_context(partial)
        begin = min(partial.rows for partial in partials)
        problems: list[str] = []
        for row, packed in enumerate(_load(partials, paths, begin, threads), start=begin):
            if isinstance(packed, ImageError):
                problems.append(packed.problem)
            elif not problems:  # after a bad image the rest is read only to learn of the others
                for partial, data in zip(partials, packed, strict=True):
                    if data is not None:
                        partial.append(data)
            if progress is not None:
                progress(row + 1)
        refuse_images(problems, paths)
        for partial in partials:
            partial.save()


def _load(
    partials: Sequence[Partial], paths: Sequence[ImagePaths], begin: int, threads: int
) -> Iterator[Packed | ImageError]:
    """The images from row `begin` on, decoded, fitted and packed."""
    starts = [partial.rows for partial in partials]  # as they are now: they grow while this runs

    def load(row: int) -> Packed | ImageError:
        wanted = [partial for partial, start in zip(partials, starts, strict=True) if start <= row]
        try:
            images = iter(load_forms(paths[row], [partial.form for partial in wanted]))
        except ImageError as error:
            return error
        return [
            partial.packing.pack(next(images)) if start <= row else None
            for partial, start in zip(partials, starts, strict=True)
        ]

    with ThreadPoolExecutor(threads) as pool:
        for start in range(begin, len(paths), _CHUNK):
            yield from pool.map(load, range(start, min(start + _CHUNK, len(paths))))


def _flush(stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())
