"""Exported networks on the CPU, run by ONNX Runtime or OpenVINO."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from pipeline.config import ImagesConfig
from pipeline.errors import RunError
from pipeline.model.build import TrainedModel

FACTS = "q2l_pipeline"
"""The key of the metadata under which a file holds its `ExportFacts` as JSON."""
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}
_Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class ExportFacts(BaseModel):
    """The facts that a program needs to use an exported file.

    Attributes:
        labels: in the order of the outputs.
        images: the images section of the config: size, fit and channels of the pixels that go in.
        half: whether the weights are stored in half precision.
        weights_sha256: of each file of weights whose network is in the file, in the order of the average.
    """

    model_config = ConfigDict(frozen=True)

    labels: tuple[str, ...]
    images: ImagesConfig
    half: bool
    weights_sha256: tuple[str, ...]


class ExportedModel(nn.Module):
    """An exported network: uint8 (B, C, H, W) to logits (B, K), the logits of its float32 probabilities."""

    def __init__(self, run: _Run) -> None:
        super().__init__()
        self._run = run

    def forward(self, images: Tensor) -> Tensor:
        """The logits of uint8 images; those of probabilities that float32 rounds to 0 or 1 are cut off there."""
        probabilities = torch.from_numpy(self._run(images.cpu().contiguous().numpy())).double()
        return probabilities.clamp(torch.finfo(torch.float32).tiny, 1 - 2**-25).logit()


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_exported(path: Path) -> TrainedModel:
    """The exported network at `path`, `.onnx` for ONNX Runtime or `.xml` for OpenVINO, on torch's number of threads.

    Raises:
        RunError: the file or its library is missing, it is no export of this pipeline, or one of other weights than
            those beside it.
    """
    kind = next(kind for kind, suffix in SUFFIXES.items() if suffix == path.suffix)
    again = f"python -m pipeline export RUN --format {kind}"
    if not path.exists():
        raise RunError(f"{path} is missing: the network is not exported", remedy=again)
    try:
        run, text = (_open_onnx if kind == "onnx" else _open_openvino)(path)
        facts = ExportFacts.model_validate_json(text)
    except ImportError as error:
        raise RunError(f"{path} needs a library: {error}", remedy="pip install '.[export]'") from None
    except Exception as error:  # noqa: BLE001 (each library raises errors of its own)
        problem = str(error).splitlines()[0]
        raise RunError(f"{path} is no export of this pipeline", got=problem, remedy=again) from None
    weights = path.with_name("weights.safetensors")
    if weights.exists() and facts.weights_sha256 != (digest_of(weights),):
        raise RunError(f"{path} is an export of other weights than {weights}", remedy=again)
    return TrainedModel(ExportedModel(run), nn.Identity(), facts.labels, facts.images)


def _open_onnx(path: Path) -> tuple[_Run, str]:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixels": pixels})[0], session.get_modelmeta().custom_metadata_map[FACTS]


def import_openvino() -> Any:
    """The module openvino without its telemetry, which would report the import to the vendor."""
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))  # openvino has a replacement where it is missing
    import openvino

    return openvino


def _open_openvino(path: Path) -> tuple[_Run, str]:
    core = import_openvino().Core()
    network = core.read_model(path)
    # Where the CPU has bfloat16, it would be the default, with errors of up to 0.05 in a probability.
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(network, "CPU", options)
    return lambda pixels: compiled(pixels)[0], network.get_rt_info([FACTS]).astype(str)
