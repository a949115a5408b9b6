"""In which format a set of images is cached, if at all: what is there already, what fits, what gains something."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

from PIL import Image

from pipeline.errors import ImageError
from pipeline.images.caching.cache import ImageCache
from pipeline.images.caching.cache_format import QUALITY, CacheFormat, JpegPacking
from pipeline.images.decoding.decode import load_forms
from pipeline.images.geometry import ImageForm

_SAMPLES = 24  # images that the size of a cache of JPEGs is estimated from
_MARGIN = 1.1
_GAIN = 2.0  # a file with fewer times the pixels of the largest form is decoded about as fast as its copy would be


class Choice(NamedTuple):
    """`kept_as`: the format, None for no cache. `why`: a sentence for a person, where that is not raw pixels."""

    kept_as: CacheFormat | None
    why: str | None = None


class _Jpegs(NamedTuple):
    """What a cache of JPEGs would be like, by a few samples."""

    needed: float  # bytes
    gains: bool


def choose_format(
    cache: ImageCache, forms: Sequence[ImageForm], *, asked: Literal["auto", "raw", "jpeg"], share: float
) -> Choice:
    """The format to keep `forms` in.

    Raw pixels where they are there or fit, whatever else the folder holds; then JPEGs that are there or begun;
    then new ones, if they take at most `share` of the free disk and gain something.

    Args:
        cache: the images.
        forms: all forms that will be opened.
        asked: what the config says; auto weighs, a name leaves only this one and none.
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
        jpegs = _estimate(cache, forms)
        if jpegs.needed <= share * free and (jpegs.gains or asked == "jpeg"):
            return jpegs_of(cache)
        needs += f", JPEGs {_gib(jpegs.needed)}" + ("" if jpegs.gains else " and would be decoded no faster than these")
    return Choice(None, f"images are decoded anew in every epoch: {needs}, and {_gib(free)} are free at {cache.folder}")


def jpegs_of(cache: ImageCache) -> Choice:
    """JPEGs, whatever the disk says."""
    return Choice(
        "jpeg", f"images are cached as JPEGs of quality {QUALITY}, which changes pixels a little, in {cache.folder}"
    )


def _estimate(cache: ImageCache, forms: Sequence[ImageForm]) -> _Jpegs:
    """Of evenly spaced samples; a bad image is left to whoever reads it later."""
    largest = max(form.size[0] * form.size[1] for form in forms)
    lengths, gains = [], []
    for row in range(0, len(cache.paths), -(-len(cache.paths) // _SAMPLES)):
        paths = cache.paths[row]
        try:
            images = load_forms(paths, forms)
        except ImageError:
            continue
        lengths.append(sum(len(JpegPacking(1, form).pack(image)) for form, image in zip(forms, images, strict=True)))
        gains.append(sum(_pixels_of(path) for path in paths) / largest)
    if not lengths:
        return _Jpegs(0.0, gains=False)
    return _Jpegs(_MARGIN * len(cache.paths) * sum(lengths) / len(lengths), median(gains) >= _GAIN)


def _pixels_of(path: Path) -> int:
    """By the file's header, whatever its kind; 0 where Pillow does not know it, which then is no reason for JPEGs."""
    try:
        with Image.open(path) as image:
            return image.width * image.height
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
