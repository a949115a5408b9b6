"""What training and evaluation read: enlarged only before a random crop, and the same with and without a cache."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.competition.paths import ImagePaths
from pipeline.config import Config, load_config
from pipeline.errors import ConfigError, RunError
from pipeline.events import Event, ImageProgress, Note
from pipeline.files import read_json, write_json
from pipeline.images.caching.cache import ImageCache
from pipeline.images.caching.cache_format import CacheFormat
from pipeline.images.caching.format_choice import Choice
from pipeline.images.dataset import TrainImages
from pipeline.images.decoding.decode import load_image
from pipeline.images.geometry import image_form
from pipeline.images.readers import DecodedSource, JpegSource
from pipeline.run.cv import run_cv
from pipeline.run.folder import RunFolder
from pipeline.run.plan import prepare
from pipeline.training import image_inputs
from pipeline.training.image_inputs import open_sources, train_augmentation, train_form

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


def test_a_format_by_name_is_used_and_noted(paths: list[ImagePaths], tmp_path: Path) -> None:
    events: list[Event] = []
    config = config_of("light", cache_format="jpeg")
    sources = open_sources(config, paths, folder=tmp_path / "cache", listen=events.append)
    (note,) = (event for event in events if isinstance(event, Note))
    assert "JPEGs of quality 95" in note.sentence
    kept, exact = sources.evaluation.load(2), load_image(paths[2], image_form(config.images))
    assert 0 < np.abs(kept.astype(int) - exact).mean() < 3


def test_no_room_is_noted_and_a_folder_that_was_named_is_refused(
    paths: list[ImagePaths], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_inputs, "choose_format", lambda *_, **__: Choice(None, "no room at all"))
    events: list[Event] = []
    sources = open_sources(config_of("light"), paths, folder=tmp_path / "cache", listen=events.append)
    assert events == [Note("no room at all")]
    assert sources.train.load(0).shape == (50, 75, 3)
    with pytest.raises(ConfigError, match=r"images.cache=here(.|\n)*no room at all"):
        open_sources(config_of("light", cache="here"), paths, folder=tmp_path, listen=events.append)


def opened(config: Config, paths: list[ImagePaths], folder: Path) -> tuple[bytes, str]:
    """The pixels of the first image, and the kind that the record in `folder` names."""
    record = folder / "images.json"
    sources = open_sources(config, paths, folder=folder / ".cache", record=record, listen=lambda _: None)
    return sources.train.load(0).tobytes(), read_json(record)["pixels"]


@pytest.mark.parametrize(("first", "kind"), [("raw", "exact"), ("jpeg", "jpeg"), (None, "exact")])
def test_pixels_are_decided_once_whatever_room_the_disk_has_later(
    paths: list[ImagePaths], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: CacheFormat | None, kind: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(image_inputs, "choose_format", lambda *_, **__: Choice(first))
        begun = opened(config_of("light"), paths, tmp_path)
    assert begun[1] == kind
    for room in (0, 2**60):
        shutil.rmtree(tmp_path / ".cache", ignore_errors=True)
        monkeypatch.setattr(ImageCache, "free_bytes", lambda _, room=room: room)
        assert opened(config_of("light"), paths, tmp_path) == begun
    other = {"cache_format": "jpeg"} if kind == "exact" else {"cache_format": "raw"}
    with pytest.raises(RunError, match="was begun on other pixels"):
        opened(config_of("light", **other), paths, tmp_path)


def test_a_process_that_decides_later_takes_what_the_first_has_decided(paths: list[ImagePaths], tmp_path: Path) -> None:
    """It met no record when it began, and one when it was through."""
    record, seen = tmp_path / "images.json", list[Event]()

    def first(event: Event) -> None:
        seen.append(event)
        write_json(record, {"pixels": "jpeg"})

    sources = open_sources(config_of("light"), paths, folder=tmp_path / "cache", record=record, listen=first)
    assert isinstance(sources.train, JpegSource)
    assert read_json(record) == {"pixels": "jpeg"}


def test_a_record_of_another_kind_is_refused(paths: list[ImagePaths], tmp_path: Path) -> None:
    write_json(tmp_path / "images.json", {"pixels": "png"})
    with pytest.raises(RunError, match="does not say which pixels"):
        opened(config_of("light"), paths, tmp_path)


def test_without_a_writable_folder_images_are_decoded_anew(paths: list[ImagePaths], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    events: list[Event] = []
    record = tmp_path / "images.json"
    folder = tmp_path / "file" / "cache"
    sources = open_sources(config_of("light"), paths, folder=folder, record=record, listen=events.append)
    (note,) = (event for event in events if isinstance(event, Note))
    assert "cannot be written" in note.sentence
    assert isinstance(sources.train, DecodedSource)
    assert read_json(record) == {"pixels": "exact"}
    with pytest.raises(ConfigError, match="cannot be written"):
        open_sources(config_of("light", cache_format="jpeg"), paths, folder=folder, listen=events.append)


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
        assert read_json(run.images) == {"pixels": "exact"}
    assert found[0] == found[1]
    assert len(list(Path("runs/.cache").glob("*.npy"))) == 2


def test_a_run_of_before_the_record_goes_on_with_exact_pixels(tiny_config: Path) -> None:
    config = load_config(tiny_config, ["train.epochs=1"])
    run = RunFolder(Path("runs/old"))
    plan = prepare(config, debug=False, listen=lambda _: None)
    run_cv(plan, run, folds=[0], fresh=False, listen=lambda _: None)
    run.images.unlink()
    jpegs = load_config(tiny_config, ["train.epochs=1", "images.cache_format=jpeg"])
    with pytest.raises(RunError, match="was begun on other pixels"):
        run_cv(replace(plan, config=jpegs), run, folds=[1], fresh=False, listen=lambda _: None)
    assert read_json(run.images) == {"pixels": "exact"}
