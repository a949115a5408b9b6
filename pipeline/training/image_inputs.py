"""From the config to the images of a training: their sizes, augmentation, and readers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.competition.paths import ImagePaths
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.events import ImageProgress, Listener, Note
from pipeline.images.augmentation.augment import Augmentation, begins_with_crop, build_augmentation
from pipeline.images.caching.cache import ImageCache
from pipeline.images.caching.format_choice import Choice, choose_format, jpegs_of
from pipeline.images.geometry import ImageForm, image_form
from pipeline.images.readers import DecodedSource, ImageSource, ImageSources
from pipeline.training.pixels import PixelKind, check_pixels, named_pixels, record_pixels

_SHARE = 0.25  # of the free disk that a cache may take where images.cache names no folder for it


def train_form(config: Config) -> ImageForm:
    """The form that the augmentation takes.

    Before a RandomResizedCrop it is `images.cache_size` times the training size, and a bound only: images that are
    stretched anyway are cut as they are, unless they are larger.
    """
    form = image_form(config.images)
    if config.images.cache_size == 1 or not begins_with_crop(config.augment.train, size=form.size):
        return form
    height, width = (round(config.images.cache_size * length) for length in form.size)
    return form._replace(size=(height, width), bound=form.fit == "stretch")


def train_augmentation(config: Config) -> Augmentation:
    """`augment.train`, from images of `train_form` to the training size. Raises ConfigError."""
    return build_augmentation(
        config.augment.train,
        size=config.images.height_width,
        channels=config.images.channels,
        source_size=train_form(config).size,
    )


def open_sources(
    config: Config, paths: Sequence[ImagePaths], *, folder: Path, listen: Listener, record: Path | None = None
) -> ImageSources:
    """The images of `paths` for training and for evaluation.

    They come from a cache where the config allows it. A cache of raw pixels changes nothing; one of JPEGs does, and
    a note is sent to `listen`. The choice is made once for a run and kept in `record`.

    Args:
        config: the run's configuration.
        paths: of the table's rows.
        folder: of the caches, unless `images.cache` names another one.
        listen: receives the progress of building a cache.
        record: the file with the kind of pixels; written where it is missing. None: the choice is for this call alone.

    Raises:
        ConfigError: there must be a cache, and its folder cannot be written or has no room.
        ImageError: some images cannot be read.
        RunError: the config names other pixels than `record`.
    """
    forms = list(dict.fromkeys((train_form(config), image_form(config.images))))
    begun = None if record is None else check_pixels(config.images, record)
    pixels, sources = _open(config, paths, forms, folder, listen, begun)
    if record is not None and begun is None and (first := record_pixels(record, pixels)) != pixels:
        _, sources = _open(config, paths, forms, folder, listen, first)  # another process was faster
    sources = sources or [DecodedSource(paths, form) for form in forms]
    return ImageSources(sources[0], sources[-1])


def _open(
    config: Config,
    paths: Sequence[ImagePaths],
    forms: Sequence[ImageForm],
    folder: Path,
    listen: Listener,
    begun: PixelKind | None,
) -> tuple[PixelKind, Sequence[ImageSource]]:
    """The kind of pixels, and the images in each of `forms`; no images without a cache."""
    asked = config.images.cache
    if asked == "none":
        return "exact", ()
    cache = ImageCache(paths, folder=folder if asked == "auto" else Path(asked))
    kept_as, why = _choose(config, cache, forms, begun)
    must = asked != "auto" or "jpeg" in (begun, named_pixels(config.images))
    if kept_as is None and must:
        raise ConfigError(
            f"images.cache={asked}, images.cache_format={config.images.cache_format}: no such cache fits there",
            got=why,
            remedy="free some space, name a folder on another disk, or set images.cache to none",
        )
    if why is not None:
        listen(Note(why))
    if kept_as is None:
        return "exact", ()

    def report(done: int) -> None:
        listen(ImageProgress("reading images", done, len(paths)))

    try:
        sources = cache.open(forms, kept_as=kept_as, threads=os.cpu_count() or 1, progress=report)
    except OSError as error:
        if not must:
            listen(Note(f"images are decoded anew in every epoch: {cache.folder} cannot be written: {error}"))
            return "exact", ()
        raise ConfigError(
            f"images.cache={asked}: {cache.folder} cannot be written: {error}",
            remedy="set images.cache to a writable folder with room"
            + ("" if "jpeg" in (begun, named_pixels(config.images)) else ", or to none"),
        ) from None
    return ("jpeg" if kept_as == "jpeg" else "exact"), sources


def _choose(config: Config, cache: ImageCache, forms: Sequence[ImageForm], begun: PixelKind | None) -> Choice:
    if begun == "jpeg":
        return jpegs_of(cache)
    asked = "raw" if begun == "exact" else config.images.cache_format
    return choose_format(cache, forms, asked=asked, share=_SHARE if config.images.cache == "auto" else 1.0)
