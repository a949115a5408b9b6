"""What a training reads, by its config: the forms of its images, their augmentation, and where pixels come from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.competition.paths import ImagePaths
from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.images.augment import Augmentation, begins_with_crop, build_augmentation
from pipeline.images.cache import ImageCache
from pipeline.images.choice import choose_format
from pipeline.images.fit import ImageForm
from pipeline.images.sources import DecodedSource, ImageSource, ImageSources
from pipeline.inference.out_of_fold import image_form
from pipeline.training.progress import ImagesSeen, Listener, Note

_SHARE = 0.25  # of the free disk that a cache nobody named a folder for may take


def train_form(config: Config) -> ImageForm:
    """The form that the augmentation takes: `images.cache_size` times the training size before a random crop."""
    form = image_form(config.images)
    if not begins_with_crop(config.augment.train, size=form.size):
        return form
    height, width = (round(config.images.cache_size * length) for length in form.size)
    return form._replace(size=(height, width))


def train_augmentation(config: Config) -> Augmentation:
    """`augment.train`, from images of `train_form` to the training size. Raises ConfigError."""
    return build_augmentation(
        config.augment.train,
        size=config.images.height_width,
        channels=config.images.channels,
        source_size=train_form(config).size,
    )


def open_sources(config: Config, paths: Sequence[ImagePaths], *, folder: Path, listen: Listener) -> ImageSources:
    """The images of `paths` for training and for evaluation.

    From a cache where the config allows it: raw pixels are the same with and without, JPEGs are not, which
    `listen` is told.

    Args:
        config: the run's configuration.
        paths: of the table's rows.
        folder: where caches are, unless `images.cache` names another folder.
        listen: told how far a cache is built.

    Raises:
        ConfigError: the cache's folder cannot be written, or has no room.
        ImageError: some images cannot be read.
    """
    forms = list(dict.fromkeys((train_form(config), image_form(config.images))))
    sources = _cached(config, paths, forms, folder, listen) or [DecodedSource(paths, form) for form in forms]
    return ImageSources(sources[0], sources[-1])


def _cached(
    config: Config, paths: Sequence[ImagePaths], forms: Sequence[ImageForm], folder: Path, listen: Listener
) -> Sequence[ImageSource]:
    """The images in each of `forms`; nothing where there is to be no cache."""
    asked = config.images.cache
    if asked == "none":
        return ()
    cache = ImageCache(paths, folder=folder if asked == "auto" else Path(asked))
    share = _SHARE if asked == "auto" else 1.0
    kept_as, why = choose_format(cache, forms, asked=config.images.cache_format, share=share)
    if kept_as is None and asked != "auto":
        raise ConfigError(
            f"images.cache={asked}: no cache of these images fits there",
            got=why,
            remedy="free some space, name a folder on another disk, or set images.cache to none",
        )
    if why is not None:
        listen(Note(why))
    if kept_as is None:
        return ()

    def report(done: int) -> None:
        listen(ImagesSeen("reading images", done, len(paths)))

    try:
        return cache.open(forms, kept_as=kept_as, threads=os.cpu_count() or 1, progress=report)
    except OSError as error:
        raise ConfigError(
            f"images.cache={asked}: {cache.folder} cannot be written: {error}",
            remedy="set images.cache to none or to a writable folder with room",
        ) from None
