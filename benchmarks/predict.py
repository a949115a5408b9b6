"""Engines of `predict.engine` side by side on the CPU: processor time of an image, with and without its decoding.

Run `python benchmarks/predict.py` (EfficientNet-Lite0 and ResNet-50 with Query2Label, 20 labels, 224 px, batches of 1,
2 and 8, one thread and two; `--rounds`, `--threads`). Random weights. Medians of rounds in turn; read the ratios.
`torch, contiguous` is what a network without channels-last memory takes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from pipeline.config import ImagesConfig, ModelConfig
from pipeline.device import use_threads
from pipeline.export.export import _export, _Whole
from pipeline.images.dataset import EvalImages
from pipeline.images.geometry import image_form
from pipeline.model.build import build_model, build_normalizer
from pipeline.model.exported import ExportFacts, load_exported

BACKBONES = ("tf_efficientnet_lite0", "resnet50")
LABELS = tuple(f"label{number}" for number in range(20))
IMAGES = ImagesConfig(size=224)
BATCHES = (1, 2, 8)
FILES = {"onnxruntime": "model.onnx", "openvino": "model.xml", "openvino, half": "half.xml"}
Engine = Callable[[Tensor], object]


def engines(backbone: str, folder: Path, pixels: Tensor) -> dict[str, Engine]:
    """The engines with the same network; exports it at the first call for a folder."""
    torch.manual_seed(0)
    networks = [
        build_model(ModelConfig(backbone=backbone, pretrained=False), IMAGES, num_labels=len(LABELS), pretrained=False)
        for _ in range(2)
    ]
    networks[1].load_state_dict(networks[0].state_dict())
    plain, last = (_Whole(build_normalizer(IMAGES, each), [each], "probability").eval() for each in networks)
    last.to(memory_format=torch.channels_last)
    normalizer = plain.normalizer
    plain.normalizer = torch.nn.Sequential(normalizer, Contiguous())
    found: dict[str, Engine] = {"torch, contiguous": plain, "torch": last}
    for name, file in FILES.items():
        path = folder / file
        if not path.exists():
            facts = ExportFacts(labels=LABELS, images=IMAGES, half="half" in name, weights_sha256=())
            _export(last, path, pixels[:7].contiguous(), facts, np.isfinite)
        found[name] = load_exported(path).model
    return found


class Contiguous(torch.nn.Module):
    """Images in (B, C, H, W) memory."""

    def forward(self, images: Tensor) -> Tensor:
        """The same images."""
        return images.contiguous()


def photograph(folder: Path) -> Path:
    """A JPEG of 640 x 427 with some structure."""
    noise = np.random.default_rng(0).integers(0, 256, (43, 64, 3)).astype(np.uint8)
    path = folder / "image.jpg"
    cv2.imwrite(str(path), cv2.resize(noise, (640, 427), interpolation=cv2.INTER_CUBIC))
    return path


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    title = f"ms of processor time per image, torch {torch.__version__} (in brackets: torch / engine)"
    with tempfile.TemporaryDirectory() as place, torch.inference_mode():
        images = EvalImages([(photograph(Path(place)),)] * max(BATCHES), forms=[image_form(IMAGES)])
        pixels = decoded(images, max(BATCHES))
        for backbone in BACKBONES:
            table = Table(
                "threads", "batch", "engine", "network", "decoded and predicted", title=f"{backbone}: {title}"
            )
            folder = Path(place) / backbone
            folder.mkdir()
            for threads in options.threads:
                use_threads(threads)
                found = engines(backbone, folder, pixels)
                for batch in BATCHES:
                    times = measure(found, images, pixels[:batch], options.rounds)
                    for name, row in times.items():
                        cells = [
                            f"{each:.1f} ({own / each:.2f})" for each, own in zip(row, times["torch"], strict=True)
                        ]
                        table.add_row(str(threads), str(batch), name, *cells)
            Console(width=120).print(table)


def decoded(images: EvalImages, count: int) -> Tensor:
    """The first images as a batch in channels-last memory."""
    return torch.stack([images[row].images[0].permute(1, 2, 0) for row in range(count)]).permute(0, 3, 1, 2)


def measure(
    found: dict[str, Engine], images: EvalImages, pixels: Tensor, rounds: int
) -> dict[str, tuple[float, float]]:
    """Milliseconds of processor time per image of each engine: of the network, and with decoding; medians."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    for turn in range(rounds + 1):  # the first turn warms up
        for name, engine in found.items():
            begin = time.process_time()
            batch = decoded(images, len(pixels))
            middle = time.process_time()
            engine(batch)
            end = time.process_time()
            if turn:
                scale = 1000 / len(pixels)
                times[name].append(((end - middle) * scale, (end - begin) * scale))
    return {
        name: (statistics.median(each[0] for each in row), statistics.median(each[1] for each in row))
        for name, row in times.items()
    }


if __name__ == "__main__":
    main()
