"""Decoded and fitted images, made once and memory-mapped by every worker and every later run."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from filelock import FileLock

from pipeline.competition.paths import ImagePaths
from pipeline.errors import ConfigError, ImageError
from pipeline.images.check import refuse_images
from pipeline.images.decode import load_image
from pipeline.images.fit import ImageForm, Pixels

ImageMap: TypeAlias = np.memmap[Any, np.dtype[np.uint8]]

_VERSION = 2  # raise it when `load_image` gives other pixels
_CHUNK = 64  # images in memory at once: enough to keep the threads busy


def open_cache(
    paths: Sequence[ImagePaths],
    form: ImageForm,
    *,
    folder: Path,
    threads: int,
    progress: Callable[[int], None] | None = None,
) -> ImageMap:
    """The images of `paths`, in their order, as a read-only map (N, H, W, C) of uint8 on disk.

    Built in `threads` threads unless `folder` has it; a second process that asks meanwhile waits, then shares
    it. An image that changes on disk (size or time) makes another cache. `progress` is called in this thread
    with the number of images done so far, and not at all when there is nothing to build.

    Raises:
        ImageError: some images cannot be read; all of them are counted, the first ones named.
        ConfigError: the disk has no room for it.
        ValueError: `paths` is empty.
    """
    file = cache_file(paths, form, folder=folder)
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if not file.exists():
                _build(file, paths, form, threads, progress)
    return open_map(file)


def cache_file(paths: Sequence[ImagePaths], form: ImageForm, *, folder: Path) -> Path:
    """Where `open_cache` keeps these images; the file is there if, and only if, the cache is complete.

    Raises:
        ImageError: some files do not exist.
        ValueError: `paths` is empty.
    """
    if not paths:
        raise ValueError("expected at least one image but got no paths")
    problems, files = [], []
    for path in (path for image in paths for path in image):
        try:
            status = path.stat()
        except OSError:
            problems.append(f"image {path} does not exist")
        else:
            files.append((str(path.absolute()), status.st_size, status.st_mtime_ns))
    refuse_images(problems, paths)
    content = json.dumps([_VERSION, *form, files])
    return folder / f"{hashlib.blake2b(content.encode(), digest_size=16).hexdigest()}.npy"


def open_map(file: Path) -> ImageMap:
    """Map a finished cache file read-only, as (N, H, W, C) uint8."""
    array = np.load(file, mmap_mode="r")
    assert isinstance(array, np.memmap), file
    assert (array.dtype, array.ndim) == (np.uint8, 4), file
    return array


def cache_fits(count: int, form: ImageForm, *, folder: Path, share: float = 0.25) -> bool:
    """Whether a cache of `count` images takes at most `share` of what is free on the disk of `folder`."""
    return math.prod((count, *form.shape)) <= share * _free_bytes(folder)


def _build(
    file: Path,
    paths: Sequence[ImagePaths],
    form: ImageForm,
    threads: int,
    progress: Callable[[int], None] | None,
) -> None:
    """Write the images one after the other into `file`, which appears only when all of them are in it."""
    shape = (len(paths), *form.shape)
    partial = file.with_suffix(".partial")
    partial.unlink(missing_ok=True)  # of a process that was killed: we hold the lock, so nobody writes it
    _require_room(math.prod(shape), file.parent)
    try:
        with partial.open("wb") as stream:
            # Plain writes, not a writable map: a full disk is then an error here and not a bus error.
            np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
            problems = _write(stream, _load(paths, form, threads), progress)
            stream.flush()
            os.fsync(stream.fileno())
        refuse_images(problems, paths)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _write(
    stream: BinaryIO, images: Iterator[Pixels | ImageError], progress: Callable[[int], None] | None
) -> list[str]:
    """Write the images until the first bad one, and go on to the end to learn of the others."""
    problems: list[str] = []
    for done, image in enumerate(images, start=1):
        if isinstance(image, ImageError):
            problems.append(image.problem)
        elif not problems:
            stream.write(image.data)
        if progress is not None:
            progress(done)
    return problems


def _load(paths: Sequence[ImagePaths], form: ImageForm, threads: int) -> Iterator[Pixels | ImageError]:
    def load(image: ImagePaths) -> Pixels | ImageError:
        try:
            return load_image(image, form)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), _CHUNK):
            yield from pool.map(load, paths[start : start + _CHUNK])


def _require_room(needed: int, folder: Path) -> None:
    free = _free_bytes(folder)
    if needed > free:
        raise ConfigError(
            f"the image cache does not fit on the disk of {folder}",
            expected=f"{needed / 2**30:.1f} GiB free",
            got=f"{free / 2**30:.1f} GiB free",
            remedy="free some space, or train without the cache",
        )


def _free_bytes(folder: Path) -> int:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free
