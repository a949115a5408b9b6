"""Chooses the format of an image cache, or none, by existing files, free disk space and expected gain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

from PIL import Image

from pipeline.errors import ImageError
from pipeline.images.caching.cache import ImageCache
from pipeline.images.caching.cache_format import QUALITY, CacheFormat, JpegRows
from pipeline.images.decoding.decode import load_forms
from pipeline.images.geometry import ImageForm

_SAMPLES = 24  # images from which the size of a cache of JPEGs is estimated
_MARGIN = 1.1
_GAIN = 2.0  # a file with fewer times the pixels of the largest form is decoded about as fast as a cached JPEG


class Choice(NamedTuple):
    """The format of a cache (None: no cache), and a sentence on the reason where that is not raw pixels."""

    kept_as: CacheFormat | None
    why: str | None = None


class _Estimate(NamedTuple):
    """The size of a cache of JPEGs in bytes, and whether it is decoded faster than the files."""

    needed: float
    gains: bool


def choose_format(
    cache: ImageCache, forms: Sequence[ImageForm], *, asked: Literal["auto", "raw", "jpeg"], share: float
) -> Choice:
    """The format in which to cache `forms`.

    The first that applies: raw pixels that exist or fit; JPEGs that exist or are begun; new JPEGs that take at most
    `share` of the free disk and are decoded faster than the files; no cache.

    Args:
        cache: the images.
        forms: all forms that will be opened.
        asked: the config's value; a name allows this format only, and JPEGs without a gain.
        share: from 0 to 1.
    """
    formats: tuple[CacheFormat, ...] = ("raw", "jpeg") if asked == "auto" else (asked,)
    free, raw = cache.free_bytes(), cache.raw_bytes(forms)
    if "raw" in formats and (raw <= share * free or (cache.begun(forms, "raw") and raw <= free)):
        return Choice("raw")
    if "jpeg" in formats and cache.begun(forms, "jpeg"):
        return jpegs_of(cache)
    needs = f"raw pixels would take {_gib(raw)}"
    if "jpeg" in formats and all(form.channels in (1, 3) for form in forms):
        needed, gains = _estimate(cache, forms)
        if needed <= share * free and (gains or asked == "jpeg"):
            return jpegs_of(cache)
        needs += f", JPEGs {_gib(needed)}" + ("" if gains else " and would be decoded no faster than these")
    return Choice(None, f"images are decoded anew in every epoch: {needs}, and {_gib(free)} are free at {cache.folder}")


def jpegs_of(cache: ImageCache) -> Choice:
    """The choice of JPEGs, with the note that pixels change."""
    return Choice(
        "jpeg", f"images are cached as JPEGs of quality {QUALITY}, which changes pixels a little, in {cache.folder}"
    )


def _estimate(cache: ImageCache, forms: Sequence[ImageForm]) -> _Estimate:
    """From evenly spaced samples; bad images are passed over, the reader reports them later."""
    largest = max(form.size[0] * form.size[1] for form in forms)
    lengths, gains = [], []
    for row in range(0, len(cache.paths), -(-len(cache.paths) // _SAMPLES)):
        paths = cache.paths[row]
        try:
            images = load_forms(paths, forms)
        except ImageError:
            continue
        lengths.append(sum(len(JpegRows(1, form).encode(image)) for form, image in zip(forms, images, strict=True)))
        gains.append(sum(_pixels_of(path) for path in paths) / largest)
    if not lengths:
        return _Estimate(0.0, gains=False)
    return _Estimate(_MARGIN * len(cache.paths) * sum(lengths) / len(lengths), median(gains) >= _GAIN)


def _pixels_of(path: Path) -> int:
    """The number of pixels by the file's header; 0 where Pillow cannot read it, which then counts as no gain."""
    try:
        with Image.open(path) as image:
            return image.width * image.height
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
