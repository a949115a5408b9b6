"""From a JPEG to a training sample, three ways side by side: the official recipe, OpenCV + albumentations, ours.

Run `python benchmarks/data.py` (640 x 427 and 4000 x 2600 pixels to 448; processor time of one core, medians of
rounds in turn; read the ratios), with `--profile NAME` (light, medium, heavy) for where our time goes, and with
`--wait` for the share of the demo's training time that waits for batches.

Restated: the official recipe is Pillow's open and convert, torchvision's Resize, cutout, RandAugment, ToTensor and
Normalize. The second reads with OpenCV, crops (light) or resizes to 448 and goes on with the same list of transforms as
ours, then albumentations' Normalize and ToTensorV2. Ours is the whole way of `TrainImages` to the uint8 tensor, the
file's end checked. Its normalisation to floats happens on the device, on whole batches; the last line tells what it
would take here.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from torchvision import transforms as T

from pipeline.competition.folds.rows import rows_of
from pipeline.competition.paths import ImagePaths
from pipeline.config import Config, load_config
from pipeline.images.augmentation.presets import preset
from pipeline.images.dataset import TrainBatch, TrainImages
from pipeline.images.geometry import Pixels
from pipeline.images.loader import Loader
from pipeline.model.normalize import PixelNormalizer
from pipeline.run.plan import Plan, prepare
from pipeline.training.build_prediction import build_runtime
from pipeline.training.fold import train_model
from pipeline.training.fold_folder import FoldFolder
from pipeline.training.fold_task import FoldTask
from pipeline.training.image_inputs import open_sources, train_augmentation

DEMO = Path(__file__).parent.parent / "configs/demo.yaml"
SIZE = 448
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(generator: np.random.Generator, height: int, width: int) -> Pixels:
    """Something like a photograph: noise of all octaves that falls with frequency, and some shapes with edges."""
    image = np.zeros((height, width, 3), np.float32)
    cells = 2
    while cells < height:
        noise = generator.normal(size=(cells, cells * width // height + 1, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * 70 / cells**0.5
        cells *= 2
    canvas = Image.fromarray(np.clip(image + 120, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for _ in range(12):
        x, y = generator.integers(0, width), generator.integers(0, height)
        w, h = generator.integers(width // 30, width // 5, 2)
        shape = draw.ellipse if generator.random() < 0.5 else draw.rectangle
        shape((int(x), int(y), int(x + w), int(y + h)), fill=tuple(map(int, generator.integers(0, 256, 3))))
    return np.asarray(canvas)


class Cutout:
    """A square of half the side somewhere, grey, as the official code has it: drawn on the Pillow image."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """A copy with the square."""
        width, height = image.size
        side = width * 0.5
        x, y = random.uniform(0, width), random.uniform(0, height)
        left, top = int(max(0, x - side / 2)), int(max(0, y - side / 2))
        box = (left, top, min(width, int(left + side)), min(height, int(top + side)))
        image = image.copy()
        ImageDraw.Draw(image).rectangle(box, (123, 116, 103))
        return image


Sample = Callable[[int], object]


def official(paths: Sequence[ImagePaths]) -> Sample:
    """Pillow throughout, floats before the device."""
    transform = T.Compose([T.Resize((SIZE, SIZE)), Cutout(), T.RandAugment(), T.ToTensor(), T.Normalize(MEAN, STD)])

    def sample(index: int) -> object:
        return transform(Image.open(paths[index][0]).convert("RGB"))

    return sample


def common(paths: Sequence[ImagePaths], augmentation: str) -> Sample:
    """OpenCV and albumentations, floats before the device; a random crop is cut from the whole image."""
    import albumentations as A  # after the adapter, which keeps it off the network

    listed = [getattr(A, name)(**arguments) for name, arguments in described(augmentation)]
    resize = [] if augmentation in ("light", "heavy") else [A.Resize(SIZE, SIZE)]
    transform = A.Compose([*resize, *listed, A.Normalize(MEAN, STD), A.ToTensorV2()])

    def sample(index: int) -> object:
        image = cv2.imread(str(paths[index][0]))
        assert image is not None, paths[index]
        return transform(image=cv2.cvtColor(image, cv2.COLOR_BGR2RGB))["image"]

    return sample


def described(augmentation: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The names and arguments of a preset, lists as albumentations wants them."""
    for spec in preset(augmentation, size=(SIZE, SIZE)):
        yield from spec.items()


def ours(paths: Sequence[ImagePaths], augmentation: str, *, folder: Path | None) -> Sample:
    """`TrainImages`, its sources opened as a run would; `folder` is that of the cache, None for none."""
    cache = "none" if folder is None else str(folder)
    config = Config.model_validate({"images": {"size": SIZE, "cache": cache}, "augment": {"train": augmentation}})
    sources = open_sources(config, paths, folder=Path(), listen=lambda _: None)
    ids, targets = [str(row) for row in range(len(paths))], np.zeros((len(paths), 1), np.float32)
    images = TrainImages(sources.train, ids, targets, augmentation=train_augmentation(config), seed=0)
    return lambda index: images[(0, index)]


def write_images(folder: Path, height: int, width: int, count: int) -> list[ImagePaths]:
    """JPEGs of quality 90."""
    generator = np.random.default_rng(0)
    paths: list[ImagePaths] = [(folder / f"{width}-{number}.jpg",) for number in range(count)]
    for (path,) in paths:
        Image.fromarray(picture(generator, height, width)).save(path, quality=90)
    return paths


def side_by_side(samples: dict[str, Sample], count: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of the processor per sample of each, by round; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in samples}
    for turn in range(rounds + 1):
        for name, sample in samples.items():
            begin = time.process_time()
            for index in range(count):
                sample(index)
            if turn:
                times[name].append(1000 * (time.process_time() - begin) / count)
    return times


def normalising(count: int) -> Sample:
    """Our normalisation, on this core: a batch of `count` images at the last of `count` calls."""
    normalizer = PixelNormalizer(MEAN, STD)
    images = torch.zeros((count, SIZE, SIZE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    return lambda index: normalizer(images) if index == count - 1 else None


def compare(options: argparse.Namespace) -> None:
    """Measure all, and print a table for each size."""
    console = Console(width=110)
    for height, width, count in ((427, 640, options.images), (2600, 4000, max(2, options.images // 4))):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            paths = write_images(folder, height, width, count)
            size = statistics.median(path.stat().st_size for (path,) in paths) / 1000
            samples: dict[str, Sample] = {"official recipe": official(paths)}
            for name in ("light", "medium"):
                samples[f"OpenCV, albumentations, {name}"] = common(paths, name)
                samples[f"ours, {name}"] = ours(paths, name, folder=None)
                samples[f"ours, {name}, cached"] = ours(paths, name, folder=folder / "cache")
            samples["our normalisation"] = normalising(count)
            times = side_by_side(samples, count, options.rounds)
        table = Table(title=f"{count} JPEGs of {width} x {height}, {size:.0f} kB (quality 90), to {SIZE} px, one core")
        for column in ("", "ms", "official / it", "albumentations / it"):
            table.add_column(column, justify="right" if column else "left")
        for name, measured in times.items():
            other = next((f"OpenCV, albumentations, {kind}" for kind in ("light", "medium") if kind in name), None)
            table.add_row(
                name,
                f"{statistics.median(measured):.2f}",
                f"{ratio(times['official recipe'], measured):.1f}",
                f"{ratio(times[other], measured):.1f}" if other else "",
            )
        console.print(table)


def ratio(theirs: list[float], ours: list[float]) -> float:
    """The median over the rounds."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def show_profile(augmentation: str) -> None:
    """Where the time of our samples goes, without and with a cache."""
    with tempfile.TemporaryDirectory() as scratch:
        paths = write_images(Path(scratch), 427, 640, 24)
        for cache in (None, Path(scratch) / "cache"):
            sample = ours(paths, augmentation, folder=cache)
            with cProfile.Profile() as profile:
                for turn in range(10 * len(paths)):
                    sample(turn % len(paths))
            pstats.Stats(profile).sort_stats("tottime").print_stats(14)


class Waiting(NamedTuple):
    """A fold's training, in seconds and in seconds of them in which no batch was there yet."""

    seconds: float
    waited: float


def measure_wait() -> None:
    """The demo's first fold, four epochs, cached, one thread: loading in the training's process, and in another."""
    with tempfile.TemporaryDirectory() as scratch:
        config = load_config(DEMO, [f"competition.root={scratch}/data", "train.epochs=4"])
        plan = prepare(config, debug=False, listen=lambda _: None)
        for workers in (0, 1):
            found = _train_timed(plan, Path(scratch), workers=workers)
            where = "in a process of its own" if workers else "in the same process"
            print(
                f"demo, 64 px, images loaded {where}: {found.waited:.2f} s of {found.seconds:.2f} s wait for batches, "
                f"{found.waited / found.seconds:.1%}"
            )


def _train_timed(plan: Plan, scratch: Path, *, workers: int) -> Waiting:
    waited, walk = 0.0, Loader.__iter__

    def timed(loader: Loader[Any]) -> Iterator[Any]:
        nonlocal waited
        batches = walk(loader)
        while True:
            begin = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - begin if isinstance(batch, TrainBatch) else 0.0
            if batch is None:
                return
            yield batch

    sources = open_sources(plan.config, plan.table.paths, folder=scratch / "cache", listen=lambda _: None)
    folder = FoldFolder(scratch / f"workers{workers}")
    setattr(Loader, "__iter__", timed)  # noqa: B010 (a plain assignment to a method is refused by mypy)
    try:
        runtime = build_runtime(plan.config)._replace(workers=workers)
        task = FoldTask(plan.config, plan.table, rows_of(plan.folds, 0), sources, folder, runtime)
        train_model(task, listen=lambda _: None)
    finally:
        setattr(Loader, "__iter__", walk)  # noqa: B010
    records = [json.loads(line) for line in folder.epochs.read_text().splitlines()]
    return Waiting(sum(record["seconds"] for record in records), waited)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", choices=["light", "medium", "heavy"])
    parser.add_argument("--wait", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    random.seed(0)
    torch.manual_seed(0)
    if options.wait:
        measure_wait()
        return
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if options.profile:
        show_profile(options.profile)
    else:
        compare(options)


if __name__ == "__main__":
    main()
