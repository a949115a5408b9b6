"""Feature maps of a frozen backbone: computed once for all folds, seeds and trials, then memory-mapped."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from pipeline.competition.table import TrainTable
from pipeline.config import Config
from pipeline.device import autocast
from pipeline.errors import ConfigError
from pipeline.events import ImageProgress, Listener, ignore
from pipeline.files import remove_leftovers, write_atomically
from pipeline.images.caching.cache import digest_of_files
from pipeline.images.dataset import EvalImages, TrainImages, eval_loader, train_loader
from pipeline.images.geometry import image_form
from pipeline.images.readers import ImageSources, MapSource
from pipeline.model.backbone import Backbone
from pipeline.model.build import backbone_of, build_normalizer, start_model
from pipeline.model.normalize import PixelNormalizer
from pipeline.prediction.predict import Runtime
from pipeline.seeds import stable_seed
from pipeline.training.distributed import from_first
from pipeline.training.image_inputs import train_augmentation

_VERSION = 1  # raise it when the same key would give other maps
_LARGEST = float(np.finfo(np.float16).max)


class _TimeOverError(Exception):
    """The deadline passed in the middle of a file."""


@dataclass(frozen=True)
class FrozenMaps:
    """The feature maps of all N images.

    Attributes:
        backbone: the tensors of the backbone that made them, by their names in the model.
        copies: of the augmented images; epoch e trains on copy e modulo their number.
        plain: of the images as they are.
    """

    backbone: dict[str, Tensor]
    copies: tuple[MapSource, ...]
    plain: MapSource


@dataclass(frozen=True)
class MapCache:
    """Makes or opens the maps at their first use, one file per copy.

    The name of a file is a digest of the backbone, the image files and the settings that its maps depend on. The
    augmentation of copy c is a function of (seed, c, id), where the seed is `train.seed` of the run; the further models
    of `train.seeds` share the maps of the first.

    Attributes:
        folder: of the files, shared by all runs.
        deadline: on the clock of `time.monotonic`.
        listen: receives the progress.
    """

    config: Config
    table: TrainTable
    sources: ImageSources
    runtime: Runtime
    folder: Path
    deadline: float
    listen: Listener

    @cached_property
    def maps(self) -> FrozenMaps | None:
        """The maps; None where the deadline passed before all were made. Finished files are kept.

        Raises:
            ConfigError: the disk has no room.
            RunError: a file cannot be written.
            ImageError: an image cannot be read.
        """
        torch.manual_seed(stable_seed("frozen"))  # where its weights lack a part of the backbone
        model = start_model(self.config.model, self.config.images, labels=self.table.labels, listen=ignore)
        backbone, normalizer = backbone_of(model), build_normalizer(self.config.images, model)
        tensors = {f"backbone.{name}": tensor.clone() for name, tensor in backbone.state_dict().items()}
        copies = (*range(self.config.features.copies), None)
        files = self._files(backbone, normalizer, copies)
        if not from_first(lambda: self._make(dict(zip(files, copies, strict=True)), backbone, normalizer)):
            return None
        *augmented, plain = map(MapSource, files)
        return FrozenMaps(tensors, tuple(augmented), plain)

    def _files(self, backbone: Backbone, normalizer: PixelNormalizer, copies: Sequence[int | None]) -> list[Path]:
        """The path of each copy, None for the plain images; a file exists if, and only if, it is complete."""
        hashed = hashlib.blake2b(digest_of_files(self.table.paths).encode())
        for name, tensor in [*backbone.state_dict().items(), *normalizer.state_dict().items()]:
            hashed.update(name.encode() + tensor.contiguous().numpy().tobytes())
        images = self.config.images.model_dump(mode="json", exclude={"cache", "broken"})
        shared = [_VERSION, hashed.hexdigest(), backbone.name, backbone.index, images, self.runtime.precision]
        drawn = [self.config.augment.train, self.config.train.seed, self.table.ids]
        keys = [[*shared, *([] if copy is None else [*drawn, copy])] for copy in copies]
        names = [hashlib.blake2b(json.dumps(key).encode(), digest_size=16).hexdigest() for key in keys]
        return [self.folder / f"{name}.npy" for name in names]

    def _make(self, files: dict[Path, int | None], backbone: Backbone, normalizer: PixelNormalizer) -> bool:
        """Make the missing files; False where the deadline passed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(next(iter(files)).with_suffix(".lock")):
            missing = {file: copy for file, copy in files.items() if not file.exists()}
            if not missing:
                return True
            remove_leftovers([self.folder])
            device = self.runtime.device
            backbone.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
            normalizer.to(device)
            height, width, channels = self.sources.evaluation.shape
            pixels = torch.zeros((1, channels, height, width), dtype=torch.uint8)
            shape = (len(self.table.ids), *self._maps_of(pixels, backbone, normalizer).shape[1:])
            self._check_room(len(missing) * 2 * math.prod(shape))
            try:
                for number, (file, copy) in enumerate(missing.items()):
                    batches = (
                        self._maps_of(images, backbone, normalizer)
                        for images in self._in_time(copy, done=number, of=len(missing))
                    )
                    write_atomically(file, partial(_write, shape=shape, batches=batches))
            except _TimeOverError:
                return False
        return True

    def _in_time(self, copy: int | None, *, done: int, of: int) -> Iterator[Tensor]:
        """The images of a copy in batches, uint8 (B, C, H, W); `done` of `of` files were made before."""
        rows = len(self.table.ids)
        seen = done * rows
        for images in self._images(copy):
            if time.monotonic() > self.deadline:
                raise _TimeOverError
            yield images
            seen += len(images)
            self.listen(ImageProgress("computing feature maps", seen, of * rows))

    def _images(self, copy: int | None) -> Iterator[Tensor]:
        table, config, size = self.table, self.config, self.runtime.batch_size
        workers, pin_memory = self.runtime.workers, self.runtime.device.type == "cuda"
        rows = np.arange(len(table.ids))
        if copy is None:
            plain = EvalImages(table.paths, forms=[image_form(config.images)], source=self.sources.evaluation)
            for each in eval_loader(plain, rows, batch_size=size, workers=workers, pin_memory=pin_memory):
                yield each.images[0]
            return
        augmented = TrainImages(
            self.sources.train,
            table.ids,
            table.targets,
            augmentation=train_augmentation(config),
            seed=config.train.seed,
        )
        keys = [(copy, int(row)) for row in rows]
        batches = [keys[start : start + size] for start in range(0, len(keys), size)]
        for batch in train_loader(augmented, batches, workers=workers, pin_memory=pin_memory):
            yield batch.images

    @torch.inference_mode()
    def _maps_of(self, images: Tensor, backbone: Backbone, normalizer: PixelNormalizer) -> NDArray[np.float16]:
        """The maps of uint8 images, float16 (B, h, w, D)."""
        with autocast(self.runtime.device, self.runtime.precision):
            maps = backbone(normalizer(images.to(self.runtime.device)))
        return np.asarray(maps.float().clamp(-_LARGEST, _LARGEST).permute(0, 2, 3, 1).half().cpu().numpy())

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise ConfigError(
                f"the feature maps do not fit on the disk of {self.folder}",
                expected=f"{needed / 2**30:.1f} GiB free",
                got=f"{free / 2**30:.1f} GiB free",
                remedy="set images.cache to a folder on another disk, or lower features.copies or images.size",
            )


def _write(path: Path, *, shape: tuple[int, ...], batches: Iterator[NDArray[np.float16]]) -> None:
    with path.open("wb") as stream:  # plain writes, not a writable map: a full disk is then an error, not a bus error
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for batch in batches:
            stream.write(batch.astype("<f2", order="C", copy=False).tobytes())
