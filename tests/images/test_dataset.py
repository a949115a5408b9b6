from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.competition.paths import ImagePaths
from pipeline.images.augmentation.albumentations_adapter import Spec
from pipeline.images.augmentation.augment import Augmentation, build_augmentation
from pipeline.images.caching.cache import ImageCache
from pipeline.images.dataset import (
    EvalImages,
    TrainImages,
    epoch_batches,
    eval_loader,
    train_loader,
)
from pipeline.images.decoding.decode import load_image
from pipeline.images.geometry import ImageForm, Pixels
from pipeline.images.readers import DecodedSource, ImageSource

FORM = ImageForm((16, 16), "stretch", 3)
IDS = list("abcdefg")
TARGETS = np.eye(7, 3, dtype=np.float32)
Write = Callable[[int], list[ImagePaths]]


@pytest.fixture
def paths(write_images: Write) -> list[ImagePaths]:
    return write_images(len(IDS))


@pytest.fixture(params=["decoded", "cached"])
def source(request: pytest.FixtureRequest, paths: list[ImagePaths], tmp_path: Path) -> ImageSource:
    if request.param == "decoded":
        return DecodedSource(paths, FORM)
    return cached(paths, tmp_path / "cache")


def cached(paths: list[ImagePaths], folder: Path, form: ImageForm = FORM) -> ImageSource:
    (source,) = ImageCache(paths, folder=folder).open([form], kept_as="raw", threads=1)
    return source


def augmentation() -> Augmentation:
    specs: list[Spec] = [
        {"HorizontalFlip": {"p": 0.5}},
        {"GaussNoise": {"p": 0.8}},
        {"CoarseDropout": {"fill": "random"}},
    ]
    return build_augmentation(specs, size=FORM.size, channels=FORM.channels)


def train_images(source: ImageSource, seed: int = 1) -> TrainImages:
    return TrainImages(source, IDS, TARGETS, augmentation=augmentation(), seed=seed)


def chw(image: Pixels) -> Pixels:
    return image.transpose(2, 0, 1)


def test_a_source_gives_fresh_fitted_images(source: ImageSource, paths: list[ImagePaths]) -> None:
    assert (len(source), source.shape) == (len(paths), (16, 16, 3))
    for index, path in enumerate(paths):
        source.load(index)[:] = 0  # the caller may change it
        np.testing.assert_array_equal(source.load(index), load_image(path, FORM))


def test_a_source_is_pickled_without_its_pixels(write_images: Write, tmp_path: Path) -> None:
    paths, form = write_images(20), ImageForm((100, 100), "stretch", 3)
    sources: list[ImageSource] = [
        DecodedSource(paths, form),
        cached(paths, tmp_path / "cache", form),
    ]
    for source in sources:
        payload = pickle.dumps(source)
        assert len(payload) < 100 * 100
        np.testing.assert_array_equal(pickle.loads(payload).load(7), source.load(7))


def test_a_training_item_is_its_image_augmented_by_seed_epoch_and_id(source: ImageSource) -> None:
    images = train_images(source, seed=5)
    image, targets, index = images[(3, 2)]
    expected = augmentation()(source.load(2), key=(5, 3, IDS[2]))
    assert (image.dtype, index) == (torch.uint8, 2)
    np.testing.assert_array_equal(image.numpy(), chw(expected))
    np.testing.assert_array_equal(targets.numpy(), TARGETS[2])


def test_a_sample_does_not_depend_on_its_row(paths: list[ImagePaths]) -> None:
    """Promise 7: seed, epoch and id decide, the row number does not."""
    images = train_images(DecodedSource(paths, FORM))
    turned = TrainImages(
        DecodedSource(paths[::-1], FORM), IDS[::-1], TARGETS[::-1], augmentation=augmentation(), seed=1
    )
    for index in range(len(IDS)):
        image, targets, _ = images[(4, index)]
        again, same, _ = turned[(4, len(IDS) - 1 - index)]
        assert torch.equal(image, again)
        assert torch.equal(targets, same)


def test_training_data_of_different_lengths_or_shapes_are_refused(paths: list[ImagePaths]) -> None:
    source = DecodedSource(paths, FORM)
    for ids, targets in [(IDS[:-1], TARGETS), (IDS, TARGETS[:-1])]:
        with pytest.raises(ValueError, match="as many images as ids and rows of targets"):
            TrainImages(source, ids, targets, augmentation=augmentation(), seed=0)
    with pytest.raises(ValueError, match=r"the augmentation's \(16, 16, 3\)"):
        train_images(DecodedSource(paths, FORM._replace(size=(8, 8))))


def test_an_evaluation_item_is_the_image_in_every_form(paths: list[ImagePaths]) -> None:
    forms = [FORM, ImageForm((24, 8), "pad", 3), ImageForm((9, 9), "crop", 1)]
    tensors, index, _ = EvalImages(paths, forms=forms)[4]
    assert index == 4
    for tensor, form in zip(tensors, forms, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), chw(load_image(paths[4], form)))


def test_an_image_is_decoded_once_for_all_sizes(paths: list[ImagePaths], monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 9."""
    decode, decoded = cv2.imdecode, []

    def counted(data: Any, flags: int) -> Any:
        decoded.append(data.tobytes())
        return decode(data, flags)

    monkeypatch.setattr(cv2, "imdecode", counted)
    forms = [FORM, FORM._replace(size=(24, 24)), FORM._replace(size=(32, 32))]
    assert len(EvalImages(paths, forms=forms)[3][0]) == 3
    assert decoded == [paths[3][0].read_bytes()]


def test_a_cached_image_of_the_only_form_is_not_decoded(paths: list[ImagePaths], tmp_path: Path) -> None:
    source = cached(paths, tmp_path / "cache")
    expected = load_image(paths[0], FORM)
    both = EvalImages(paths, forms=[FORM, FORM._replace(size=(8, 8))], source=source)[0][0]
    assert [tuple(tensor.shape) for tensor in both] == [(3, 16, 16), (3, 8, 8)]
    paths[0][0].unlink()
    ((tensor,), *_) = EvalImages(paths, forms=[FORM], source=source)[0]
    np.testing.assert_array_equal(tensor.numpy(), chw(expected))


def test_evaluation_without_a_form_or_with_another_source_is_refused(paths: list[ImagePaths]) -> None:
    with pytest.raises(ValueError, match="at least one form"):
        EvalImages(paths, forms=[])
    with pytest.raises(ValueError, match="a source of 7 images but got 6"):
        EvalImages(paths, forms=[FORM], source=DecodedSource(paths[1:], FORM))


def test_training_batches_are_uint8_and_carry_their_indices(source: ImageSource) -> None:
    """Promise 6."""
    images = train_images(source)
    ((pixels, targets, indices),) = train_loader(images, [[(2, 5), (2, 0)]], workers=0, pin_memory=False)
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels, torch.stack([images[(2, 5)][0], images[(2, 0)][0]]))
    assert torch.equal(targets, torch.from_numpy(TARGETS[[5, 0]]))
    assert indices.tolist() == [5, 0]


def test_evaluation_batches_follow_the_rows_and_lose_none(paths: list[ImagePaths]) -> None:
    images = EvalImages(paths, forms=[FORM, FORM._replace(size=(8, 8))])
    rows = np.array([6, 2, 4, 0, 1])
    batches = list(eval_loader(images, rows, batch_size=2, workers=0, pin_memory=False))
    assert [batch.indices.tolist() for batch in batches] == [[6, 2], [4, 0], [1]]
    for views, indices, problems in batches:
        assert not problems
        for number, view in enumerate(views):
            assert view.dtype == torch.uint8
            assert view.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(view, torch.stack([images[int(index)][0][number] for index in indices]))


@settings(deadline=None)
@given(st.sets(st.text(max_size=3), min_size=1, max_size=30), st.integers(1, 9), st.randoms(use_true_random=False))
def test_an_epochs_order_depends_on_the_set_of_ids_alone(ids: set[str], batch_size: int, chance: object) -> None:
    """Promise 7: neither the order of the table's rows nor that of the indices matters."""
    table = sorted(ids)
    moved = table.copy()
    chance.shuffle(moved)  # type: ignore[attr-defined]
    rows = list(range(len(moved)))
    chance.shuffle(rows)  # type: ignore[attr-defined]

    def order(table: list[str], rows: list[int]) -> list[list[str]]:
        batches = epoch_batches(rows, table, epoch=2, seed=0, batch_size=batch_size)
        assert all(epoch == 2 for batch in batches for epoch, _ in batch)
        return [[table[index] for _, index in batch] for batch in batches]

    batches = order(table, list(range(len(table))))
    assert order(moved, rows) == batches
    seen = [name for batch in batches for name in batch]
    assert len(seen) == len(set(seen))
    if len(table) < batch_size:
        assert sorted(seen) == table
    else:
        assert {len(batch) for batch in batches} == {batch_size}
        assert len(table) - len(seen) < batch_size


def test_epochs_and_seeds_have_their_own_order_and_rows_outside_stay_outside() -> None:
    ids = [str(number) for number in range(100)]

    def order(epoch: int, seed: int) -> list[int]:
        batches = epoch_batches(range(20, 90), ids, epoch=epoch, seed=seed, batch_size=70)
        return [index for batch in batches for _, index in batch]

    orders = [order(0, 0), order(1, 0), order(0, 1)]
    assert len(set(map(tuple, orders))) == 3
    assert all(sorted(each) == list(range(20, 90)) for each in orders)


def test_an_epoch_of_nothing_or_of_equal_ids_is_refused() -> None:
    for indices, ids in [([], ["a"]), ([0, 1], ["a", "a"])]:
        with pytest.raises(ValueError, match="rows with different ids"):
            epoch_batches(indices, ids, epoch=0, seed=0, batch_size=1)
