"""The cache of decoded images: built once, memory-mapped by every worker and every later run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from pipeline.competition.paths import ImagePaths
from pipeline.errors import ConfigError
from pipeline.events import Listener, Note, ignore
from pipeline.images.caching.cache_format import ROW_FORMATS, CacheFormat, row_bytes
from pipeline.images.caching.cache_writer import PartialCache, build
from pipeline.images.check import refuse_images
from pipeline.images.geometry import ImageForm
from pipeline.images.readers import CachedSource, ImageSource, JpegSource

_VERSION = 4  # raise it when `load_forms` gives other pixels, or a row format other bytes


class ImageCache:
    """The images of `paths` in `folder`: one file per form and format, shared by all processes.

    The file names depend on the name, size and time of every image, so a changed image is never read from an old file.

    Raises:
        ImageError: some images do not exist.
        ValueError: `paths` is empty.
    """

    def __init__(self, paths: Sequence[ImagePaths], *, folder: Path) -> None:
        self.paths, self.folder = paths, folder
        self._digest = digest_of_files(paths)

    def file(self, form: ImageForm, kept_as: CacheFormat) -> Path:
        """The path of these images; the file exists if, and only if, it is complete."""
        name = hashlib.blake2b(json.dumps([_VERSION, kept_as, *form, self._digest]).encode(), digest_size=16)
        return self.folder / f"{name.hexdigest()}{ROW_FORMATS[kept_as].suffix}"

    def holds(self, forms: Sequence[ImageForm], kept_as: CacheFormat) -> bool:
        """Whether all these forms are complete."""
        return all(self.file(form, kept_as).exists() for form in forms)

    def begun(self, forms: Sequence[ImageForm], kept_as: CacheFormat) -> bool:
        """Whether each of these forms is complete, or its build has begun."""
        return all(self.file(form, kept_as).exists() or self._partial(form, kept_as).path.exists() for form in forms)

    def raw_bytes(self, forms: Sequence[ImageForm]) -> int:
        """The bytes that raw pixels in these forms still need on the disk."""
        missing = [form for form in forms if not self.file(form, "raw").exists()]
        begun = [self._partial(form, "raw").path for form in missing]
        there = sum(path.stat().st_size for path in begun if path.exists())
        return sum(len(self.paths) * row_bytes(form) for form in missing) - there

    def free_bytes(self) -> int:
        """The free bytes on the disk of `folder`, which need not exist yet."""
        existing = next(
            parent for parent in (self.folder.absolute(), *self.folder.absolute().parents) if parent.exists()
        )
        return shutil.disk_usage(existing).free

    def open(
        self,
        forms: Sequence[ImageForm],
        *,
        kept_as: CacheFormat,
        threads: int,
        progress: Callable[[int], None] | None = None,
        listen: Listener = ignore,
    ) -> tuple[ImageSource, ...]:
        """The images in each of `forms`.

        Missing forms are built in `threads` threads, with each image decoded once for all forms. An interrupted
        build continues where it stopped; a second process waits for the first, then shares the result.
        `progress` is called in this thread with the number of images done so far; never when nothing is built.
        A damaged file is noted and built again.

        Raises:
            ImageError: some images cannot be read; all of them are counted, the first ones named.
            ConfigError: the disk has no room for raw pixels.
            OSError: a cache file cannot be written.
        """
        wanted = sorted({self.file(form, kept_as): form for form in forms}.items())
        if not all(self._is_whole(form, kept_as) for form in forms):
            self.folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as locks:
                for file, _ in wanted:  # sorted, so that two processes with the same files do not wait for each other
                    locks.enter_context(FileLock(file.with_suffix(".lock")))
                for file, form in wanted:
                    if file.exists() and not self._is_whole(form, kept_as):
                        listen(Note(f"the cache {file} is damaged and built again"))
                        file.unlink()
                missing = [self._partial(form, kept_as) for file, form in wanted if not file.exists()]
                if missing:
                    self._require_room(forms, kept_as)
                    build(missing, self.paths, threads=threads, progress=progress)
        files = [self.file(form, kept_as) for form in forms]
        return tuple(CachedSource(file) if kept_as == "raw" else JpegSource(file) for file in files)

    def _partial(self, form: ImageForm, kept_as: CacheFormat) -> PartialCache:
        return PartialCache(self.file(form, kept_as), form, ROW_FORMATS[kept_as](len(self.paths), form))

    def _is_whole(self, form: ImageForm, kept_as: CacheFormat) -> bool:
        """Whether the file has the header and the length of these images."""
        rows, count = ROW_FORMATS[kept_as](len(self.paths), form), len(self.paths)
        try:
            with self.file(form, kept_as).open("rb") as stream:
                same = stream.read(len(rows.fixed)) == rows.fixed
                return same and rows.end_of(stream, count) == os.fstat(stream.fileno()).st_size
        except (OSError, ValueError):
            return False

    def _require_room(self, forms: Sequence[ImageForm], kept_as: CacheFormat) -> None:
        needed, free = self.raw_bytes(forms) if kept_as == "raw" else 0, self.free_bytes()
        if needed > free:
            raise ConfigError(
                f"the image cache does not fit on the disk of {self.folder}",
                expected=f"{needed / 2**30:.1f} GiB free",
                got=f"{free / 2**30:.1f} GiB free",
                remedy="free some space, set images.cache to a folder on another disk or to none, or begin a new run "
                "with images.cache_format=jpeg",
            )


def digest_of_files(paths: Sequence[ImagePaths]) -> str:
    """A digest of the names, sizes and times of all files. Raises ImageError if some do not exist."""
    if not paths:
        raise ValueError("expected at least one image but got no paths")
    here, problems, hashed = os.getcwd(), list[str](), hashlib.blake2b(digest_size=16)
    for image in paths:
        for path in image:
            try:
                status = os.stat(path)
            except OSError:
                problems.append(f"image {path} does not exist")
            else:
                hashed.update(f"{os.path.join(here, path)}\0{status.st_size} {status.st_mtime_ns}\n".encode())
        hashed.update(b"\0\n")
    refuse_images(problems, paths)
    return hashed.hexdigest()
