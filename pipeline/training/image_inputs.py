"""From the config to the images of a training: their sizes, augmentation, and readers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import joblib

from pipeline.competition.paths import ImagePaths
from pipeline.config import Config
from pipeline.config.images import ImagesConfig
from pipeline.errors import ConfigError
from pipeline.events import ImageProgress, Listener, Note
from pipeline.images.augmentation.augment import Augmentation, begins_with_crop, build_augmentation
from pipeline.images.caching.cache import ImageCache
from pipeline.images.caching.cache_format import CacheFormat
from pipeline.images.geometry import ImageForm, image_form
from pipeline.images.readers import DecodedSource, ImageSource, ImageSources

_SHARE = 0.25  # of the free disk that a cache may take where the config does not ask for one


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


def open_sources(config: Config, paths: Sequence[ImagePaths], *, folder: Path, listen: Listener) -> ImageSources:
    """The images of `paths` for training and for evaluation, from a cache where the config allows it.

    A cache of raw pixels changes no pixel; one of JPEGs does.

    Args:
        config: the run's configuration.
        paths: of the table's rows.
        folder: of the cache, unless `images.cache` names another one.
        listen: receives the progress of building a cache, and the reason where there is none.

    Raises:
        ConfigError: the config asks for a cache, and its folder cannot be written or has no room.
        ImageError: some images cannot be read.
    """
    forms = list(dict.fromkeys((train_form(config), image_form(config.images))))
    sources = _cached(config.images, paths, forms, folder, listen) or [DecodedSource(paths, form) for form in forms]
    return ImageSources(sources[0], sources[-1])


def _cached(
    images: ImagesConfig, paths: Sequence[ImagePaths], forms: Sequence[ImageForm], folder: Path, listen: Listener
) -> Sequence[ImageSource]:
    """The images in each of `forms`, read from a cache; empty without one."""
    if images.cache == "none":
        return ()
    cache = ImageCache(paths, folder=folder if images.cache == "auto" else Path(images.cache))
    optional = images.cache == "auto" and images.cache_format == "auto"
    needed, free = cache.raw_bytes(forms), cache.free_bytes()
    if optional and needed > (free if cache.begun(forms, "raw") else _SHARE * free):
        listen(
            Note(
                f"images are decoded anew in every epoch: a cache of raw pixels would take {needed / 2**30:.1f} GiB, "
                f"{free / 2**30:.1f} GiB are free at {cache.folder}; images.cache_format=jpeg needs a fifth or less"
            )
        )
        return ()

    def report(done: int) -> None:
        listen(ImageProgress("reading images", done, len(paths)))

    kept_as: CacheFormat = "jpeg" if images.cache_format == "jpeg" else "raw"
    try:
        return cache.open(forms, kept_as=kept_as, threads=joblib.cpu_count(), progress=report, listen=listen)
    except OSError as error:
        if optional:
            listen(Note(f"images are decoded anew in every epoch: {cache.folder} cannot be written: {error}"))
            return ()
        raise ConfigError(
            f"images.cache={images.cache}: {cache.folder} cannot be written: {error}",
            remedy="set images.cache to a writable folder with room"
            + ("" if kept_as == "jpeg" else ", or to none with images.cache_format=auto"),
        ) from None
