"""Which pixels a run sees, exact ones or those of JPEGs: decided once, written down, and the same ever after."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pipeline.config.images import ImagesConfig
from pipeline.errors import RunError
from pipeline.files import read_json, write_json_once

PixelKind: TypeAlias = Literal["exact", "jpeg"]
"""exact: as the files decode, with a cache of raw pixels or none; jpeg: through a cache of JPEGs."""

_KINDS: tuple[PixelKind, ...] = ("exact", "jpeg")


def named_pixels(images: ImagesConfig) -> PixelKind | None:
    """What the config leaves no choice about; None where `auto` decides."""
    if images.cache == "none" or images.cache_format == "raw":
        return "exact"
    return "jpeg" if images.cache_format == "jpeg" else None


def read_pixels(record: Path) -> PixelKind | None:
    """What was written down; None if nothing was yet. Raises RunError where the file holds something else."""
    if not record.exists():
        return None
    data = read_json(record)
    for kind in _KINDS:
        if data == {"pixels": kind}:
            return kind
    raise RunError(
        f"{record} does not say which pixels were trained on",
        expected='{"pixels": "exact"} or {"pixels": "jpeg"}',
        got=repr(data),
        remedy="restore it, or start with --fresh",
    )


def record_pixels(record: Path, pixels: PixelKind) -> PixelKind:
    """Write `pixels` down unless another process was first; what is written there now. Raises RunError."""
    write_json_once(record, {"pixels": pixels})
    return read_pixels(record) or pixels


def check_pixels(images: ImagesConfig, record: Path) -> PixelKind | None:
    """What was written down, as `read_pixels`.

    Raises:
        RunError: the config names the other kind.
    """
    begun, named = read_pixels(record), named_pixels(images)
    if begun is not None and named not in (None, begun):
        raise RunError(
            f"{record.parent} was begun on other pixels",
            expected="images.cache and images.cache_format that give "
            + ("exact pixels: auto, raw or no cache" if begun == "exact" else "JPEGs: a cache, and auto or jpeg"),
            got=f"images.cache={images.cache}, images.cache_format={images.cache_format}",
            remedy="go back to the old values, give another --run NAME, or start over with --fresh",
        )
    return begun
