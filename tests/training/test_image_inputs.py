"""What training and evaluation read: enlarged only before a random crop, and the same with and without a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.competition.paths import ImagePaths
from pipeline.config import Config, load_config
from pipeline.errors import ConfigError
from pipeline.events import Event, ImageProgress, Note
from pipeline.images.caching.cache import ImageCache
from pipeline.images.dataset import TrainImages
from pipeline.images.decoding.decode import load_image
from pipeline.images.geometry import image_form
from pipeline.images.readers import CachedSource, DecodedSource
from pipeline.run.cv import run_cv
from pipeline.run.folder import RunFolder
from pipeline.run.plan import prepare
from pipeline.training.image_inputs import open_sources, train_augmentation, train_form
from tests.images.conftest import interrupt

RESIZED = {"RandomResizedCrop": {"size": [40, 60], "scale": [0.5, 1.0]}}


def config_of(train: Any, **images: Any) -> Config:
    return Config.model_validate({"augment": {"train": train}, "images": {"size": [40, 60], **images}})


@pytest.mark.parametrize(
    ("train", "size"),
    [
        ("light", (50, 75)),
        ("heavy", (50, 75)),
        ("medium", (40, 60)),
        ([], (40, 60)),
        ([RESIZED], (50, 75)),
        ([{"RandomCrop": {"height": 40, "width": 60}}], (40, 60)),  # counts in pixels
        ([{"RandomSizedCrop": {"size": [40, 60], "min_max_height": [20, 40]}}], (40, 60)),
        ([{"RandomCrop": {"height": 20, "width": 60}}], (40, 60)),  # to another size
        ([{"RandomResizedCrop": {"size": [40, 60], "p": 0.9}}], (40, 60)),  # not always
        ([{"HorizontalFlip": None}, RESIZED], (40, 60)),  # not first
        ([{"CenterCrop": {"height": 40, "width": 60}}], (40, 60)),  # not random
    ],
)
def test_images_are_larger_before_a_random_crop_only(train: Any, size: tuple[int, int]) -> None:
    config = config_of(train)
    assert train_form(config) == image_form(config.images)._replace(size=size, bound=size == (50, 75))
    assert train_form(config_of(train, cache_size=1.0)) == image_form(config.images)
    assert not train_form(config_of(train, fit="pad")).bound
    if train not in ([{"RandomCrop": {"height": 20, "width": 60}}],):  # which is refused, below
        augmentation = train_augmentation(config)
        noise = np.random.default_rng(0).integers(0, 256, augmentation.takes, np.uint8)
        assert augmentation.takes == (*size, 3)
        assert augmentation(noise, key=(0, 0, "a")).shape == (40, 60, 3)


def test_a_crop_to_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"RandomCrop changes the kind or size(.|\n)*uint8 40x60x3(.|\n)*20x60x3"):
        train_augmentation(config_of([{"RandomCrop": {"height": 20, "width": 60}}]))


@pytest.fixture
def paths(tmp_path: Path) -> list[ImagePaths]:
    """JPEGs of 90 x 130: at half their size large enough to evaluate, but not to be cut from."""
    made: list[ImagePaths] = [(tmp_path / "images" / f"{number}.jpg",) for number in range(5)]
    (tmp_path / "images").mkdir()
    for number, (path,) in enumerate(made):
        noise = np.random.default_rng(number).integers(0, 256, (90, 130, 3), np.uint8)
        Image.fromarray(cv2.GaussianBlur(noise, (5, 5), 2)).save(path, quality=95)
    return made


@pytest.mark.parametrize("train", ["light", "medium"])
def test_a_cache_of_raw_pixels_changes_no_pixel(paths: list[ImagePaths], tmp_path: Path, train: str) -> None:
    batches = []
    for cache in ("none", "auto"):
        config = config_of(train, cache=cache)
        events: list[Event] = []
        sources = open_sources(config, paths, folder=tmp_path / "cache", listen=events.append)
        ids, targets = list("abcde"), np.zeros((5, 1), np.float32)
        images = TrainImages(sources.train, ids, targets, augmentation=train_augmentation(config), seed=0)
        batches.append([images[(1, row)][0].numpy() for row in range(5)])
        for row in range(5):
            np.testing.assert_array_equal(
                sources.evaluation.load(row), load_image(paths[row], image_form(config.images))
            )
        assert (sources.train is sources.evaluation) == (train == "medium")
        assert [event for event in events if isinstance(event, ImageProgress)] == [
            ImageProgress("reading images", done, 5) for done in range(1, 6) if cache == "auto"
        ]
    np.testing.assert_array_equal(batches[0], batches[1])


def test_jpegs_change_pixels_a_little(paths: list[ImagePaths], tmp_path: Path) -> None:
    config = config_of("light", cache_format="jpeg")
    sources = open_sources(config, paths, folder=tmp_path / "cache", listen=lambda _: None)
    kept, exact = sources.evaluation.load(2), load_image(paths[2], image_form(config.images))
    assert 0 < np.abs(kept.astype(int) - exact).mean() < 3


@pytest.mark.parametrize(
    ("asked", "free", "cached"),
    [
        ({}, 4.01, True),  # a quarter of the free disk
        ({}, 3.99, False),
        ({"cache_format": "raw"}, 1.01, True),
        ({"cache_format": "raw"}, 0.99, None),
        ({"cache": "here"}, 1.01, True),
        ({"cache": "here"}, 0.99, None),
        ({"cache_format": "jpeg"}, 0.0, True),  # what it takes is not known before
    ],
)
def test_raw_pixels_where_they_fit_else_a_note_or_an_error_if_asked_for(
    paths: list[ImagePaths],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, str],
    free: float,
    cached: bool | None,
) -> None:
    config, events, folder = config_of("light", **asked), list[Event](), workplace / "cache"
    needed = ImageCache(paths, folder=folder).raw_bytes((train_form(config), image_form(config.images)))
    monkeypatch.setattr(ImageCache, "free_bytes", lambda _: int(free * needed))
    if cached is None:
        with pytest.raises(ConfigError, match="does not fit on the disk"):
            open_sources(config, paths, folder=folder, listen=events.append)
        return
    sources = open_sources(config, paths, folder=folder, listen=events.append)
    notes = [event.sentence for event in events if isinstance(event, Note)]
    assert isinstance(sources.train, DecodedSource) is not cached
    assert len(notes) == (not cached)
    assert all("images.cache_format=jpeg" in note for note in notes)


def test_a_begun_cache_may_take_all_of_the_disk(
    paths: list[ImagePaths], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, cache = config_of("light"), ImageCache(paths, folder=tmp_path)
    forms = (train_form(config), image_form(config.images))
    interrupt(cache, *forms, kept_as="raw", at=1)
    monkeypatch.setattr(ImageCache, "free_bytes", lambda _: cache.raw_bytes(forms))
    assert isinstance(open_sources(config, paths, folder=tmp_path, listen=lambda _: None).train, CachedSource)


def test_without_a_writable_folder_images_are_decoded_anew(paths: list[ImagePaths], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    events: list[Event] = []
    folder = tmp_path / "file" / "cache"
    sources = open_sources(config_of("light"), paths, folder=folder, listen=events.append)
    (note,) = (event for event in events if isinstance(event, Note))
    assert "cannot be written" in note.sentence
    assert isinstance(sources.train, DecodedSource)
    with pytest.raises(ConfigError, match="cannot be written"):
        open_sources(config_of("light", cache_format="jpeg"), paths, folder=folder, listen=events.append)


def test_a_format_without_a_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="cache: none has no format"):
        config_of("light", cache="none", cache_format="jpeg")


def test_jpegs_of_four_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or 3 channels"):
        config_of("light", cache_format="jpeg", channels=4)


def test_a_run_with_a_crop_is_the_same_with_and_without_a_cache(tiny_config: Path) -> None:
    found = []
    for name, cache in (("with", "auto"), ("without", "none")):
        config = load_config(tiny_config, ["augment.train=light", "train.epochs=1", f"images.cache={cache}"])
        run = RunFolder(Path("runs") / name)
        run_cv(prepare(config, debug=False, listen=lambda _: None), run, folds=None, fresh=False, listen=lambda _: None)
        found.append(run.oof.read_bytes())
    assert found[0] == found[1]
    assert len(list(Path("runs/.cache").glob("*.npy"))) == 2
