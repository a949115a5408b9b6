"""Datasets and loaders of uint8 batches, and the order of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.competition.paths import ImagePaths
from pipeline.errors import ImageError
from pipeline.images.decoding.decode import load_forms
from pipeline.images.geometry import ImageForm, Pixels
from pipeline.images.loader import Loader
from pipeline.images.readers import ImageSource, MapSource
from pipeline.seeds import stable_seed

if TYPE_CHECKING:
    from pipeline.images.augmentation.augment import Augmentation


class TrainBatch(NamedTuple):
    """`images` (B, C, H, W) uint8 in channels-last memory, `targets` (B, K) float32, `indices` (B,) int64."""

    images: Tensor
    targets: Tensor
    indices: Tensor


class EvalBatch(NamedTuple):
    """A batch for evaluation.

    Attributes:
        images: per form one (B, C, h, w) uint8 tensor in channels-last memory.
        indices: (B,) int64.
        problems: by index, why an image cannot be read; its pixels are zeros.
    """

    images: tuple[Tensor, ...]
    indices: Tensor
    problems: dict[int, str]


class EvalItem(NamedTuple):
    """One image as a uint8 tensor (C, h, w) per form, its row, and why it cannot be read (its pixels are zeros)."""

    images: tuple[Tensor, ...]
    row: int
    problem: str | None


class TrainImages(Dataset[tuple[Tensor, Tensor, int]]):
    """Augmented images with their targets.

    The key of an item is (epoch, index), so the workers need not know the epoch. The item is the uint8 image
    (C, H, W), augmented as a function of (seed, epoch, ids[index]) alone, the float32 targets (K,), and the index.

    Args:
        source: N images.
        ids: of the N rows.
        targets: (N, K).
        augmentation: takes images of the source's shape.
        seed: of the run.

    Raises:
        ValueError: N differs between source, ids and targets, or the augmentation is for another shape.
    """

    def __init__(
        self,
        source: ImageSource,
        ids: Sequence[str],
        targets: NDArray[np.float32],
        *,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        if not len(source) == len(ids) == len(targets):
            counts = f"{len(source)}, {len(ids)} and {len(targets)}"
            raise ValueError(f"expected as many images as ids and rows of targets but got {counts}")
        if source.shape != augmentation.takes:
            raise ValueError(f"expected images of the augmentation's {augmentation.takes} but got {source.shape}")
        self._source, self._ids, self._augmentation, self._seed = source, list(ids), augmentation, seed
        # A copy: torch refuses read-only and reversed arrays, and those from pandas often are.
        self._targets = torch.from_numpy(np.array(targets, np.float32, order="C"))

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, int]:
        epoch, index = key
        image = self._augmentation(self._source.load(index), key=(self._seed, epoch, self._ids[index]))
        return _channels_first(image), self._targets[index], index


class TrainMaps(Dataset[tuple[Tensor, Tensor, int]]):
    """Feature maps of augmented images with their targets, in place of `TrainImages`.

    The key of an item is (epoch, index). The item is the float16 map (D, h, w) of copy `epoch` modulo their number, the
    float32 targets (K,), and the index.
    """

    def __init__(self, copies: Sequence[MapSource], targets: NDArray[np.float32]) -> None:
        self._copies, self._targets = copies, torch.from_numpy(np.array(targets, np.float32, order="C"))

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, int]:
        epoch, index = key
        return _channels_first(self._copies[epoch % len(self._copies)].load(index)), self._targets[index], index


class EvalImages(Dataset[EvalItem]):
    """Images without augmentation, each in all `forms`.

    A file is decoded once for all forms of the same reading, and not at all where `source` has the only form.

    Args:
        paths: the files of N images.
        forms: at least one.
        source: the same N images in one form. Its `fit` must be that of `forms`; this is not checked.
        tolerant: for an image that cannot be read, give zeros and the problem instead of an error.

    Raises:
        ValueError: there is no form, or the source has another number of images.
    """

    def __init__(
        self,
        paths: Sequence[ImagePaths],
        *,
        forms: Sequence[ImageForm],
        source: ImageSource | None = None,
        tolerant: bool = False,
    ) -> None:
        if not forms:
            raise ValueError("expected at least one form but got none")
        if source is not None and len(source) != len(paths):
            raise ValueError(f"expected a source of {len(paths)} images but got {len(source)}")
        self._paths, self._forms, self._tolerant = list(paths), tuple(forms), tolerant
        holds_all = source is not None and [form.shape for form in self._forms] == [source.shape]
        self._source = source if holds_all else None

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> EvalItem:
        """Raises ImageError if the image cannot be read, unless `tolerant`."""
        try:
            return EvalItem(self._load(index), index, None)
        except ImageError as error:
            if not self._tolerant:
                raise
            blank = (_channels_first(np.zeros(form.shape, np.uint8)) for form in self._forms)
            return EvalItem(tuple(blank), index, error.problem)

    def _load(self, index: int) -> tuple[Tensor, ...]:
        if self._source is not None:
            return (_channels_first(self._source.load(index)),)
        return tuple(_channels_first(image) for image in load_forms(self._paths[index], self._forms))


def train_loader(
    dataset: TrainImages | TrainMaps, batches: Sequence[Sequence[tuple[int, int]]], *, workers: int, pin_memory: bool
) -> Loader[TrainBatch]:
    """Load `batches`, all or the rest of `epoch_batches`, in `workers` processes (0: in this one)."""
    return Loader(dataset, batches, _collate_train, workers=workers, pin_memory=pin_memory)


def eval_loader(
    dataset: EvalImages,
    rows: Sequence[int] | NDArray[np.int64],
    *,
    batch_size: int,
    workers: int,
    pin_memory: bool,
) -> Loader[EvalBatch]:
    """Load `rows` in their order, `batch_size` at a time; the last batch may be shorter."""
    numbers = [int(row) for row in rows]
    batches = [numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)]
    return Loader(dataset, batches, _collate_eval, workers=workers, pin_memory=pin_memory)


def epoch_batches(
    indices: Sequence[int] | NDArray[np.int64], ids: Sequence[str], *, epoch: int, seed: int, batch_size: int
) -> list[list[tuple[int, int]]]:
    """The shuffled batches of one epoch, as keys (epoch, index) of `TrainImages`.

    The order of ids is a function of `seed`, `epoch` and the set of ids alone; the order of rows does not matter. A
    short last batch is dropped, because batch norm learns noise from a few images and fails on one; the next epoch
    drops other rows. Fewer rows than `batch_size` make one short batch.

    Args:
        indices: the rows to train on.
        ids: of all rows of the table: `ids[index]` belongs to `index`.
        epoch: counted from 0.
        seed: of the run.
        batch_size: rows in a batch.

    Raises:
        ValueError: there are no indices, or two of them have the same id.
    """
    by_id = {ids[index]: int(index) for index in indices}
    if not by_id or len(by_id) != len(indices):
        raise ValueError(f"expected rows with different ids but got {len(indices)} rows, {len(by_id)} ids")
    rows = [by_id[each] for each in sorted(by_id)]
    generator = np.random.Generator(np.random.PCG64(stable_seed("order", seed, epoch)))
    keys = [(epoch, rows[place]) for place in generator.permutation(len(rows))]
    full = len(keys) // batch_size
    return [keys[start : start + batch_size] for start in range(0, max(1, full) * batch_size, batch_size)]


def _collate_train(items: list[tuple[Tensor, Tensor, int]]) -> TrainBatch:
    images, targets, indices = zip(*items, strict=True)
    return TrainBatch(_stack(images), torch.stack(targets), torch.tensor(indices))


def _collate_eval(items: list[EvalItem]) -> EvalBatch:
    images = tuple(_stack(views) for views in zip(*(item.images for item in items), strict=True))
    problems = {item.row: item.problem for item in items if item.problem is not None}
    return EvalBatch(images, torch.tensor([item.row for item in items]), problems)


def _stack(images: Sequence[Tensor]) -> Tensor:
    """Stack (C, H, W) tensors in channels-last memory to (B, C, H, W) of the same layout, without a transpose."""
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def _channels_first(image: Pixels) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)
