"""Exports the networks of a finished run as ONNX or OpenVINO files, and compares each with the original."""

from __future__ import annotations

import functools
import math
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.competition.table import read_train
from pipeline.errors import RunError
from pipeline.events import ignore
from pipeline.files import write_atomically
from pipeline.images.dataset import EvalImages
from pipeline.images.geometry import image_form
from pipeline.model.build import load_model
from pipeline.model.exported import FACTS, SUFFIXES, ExportFacts, digest_of, import_openvino, load_exported
from pipeline.prediction.ensemble import Average
from pipeline.run.submission.test_thresholds import read_decision_rule
from pipeline.run.trained_run import TrainedRun, require_models
from pipeline.thresholds.row_rules import row_rules

Format = Literal["onnx", "openvino"]
_Decide = Callable[[NDArray[np.float64]], NDArray[np.bool_]]
_BATCHES = (1, 2, 7)  # of the comparison; an exporter may fix the size of the batch that it sees
_TOLERANCE = {False: 1e-4, True: 1e-2}  # of a probability, by half
_OPSET = 17
_LEAST = 1024  # numbers of a tensor that is worth storing in half precision


class _Whole(nn.Module):
    """Normalisation, one or more networks, and their average: uint8 (B, C, H, W) to probabilities (B, K)."""

    def __init__(self, normalizer: nn.Module, models: Sequence[nn.Module], average: Average) -> None:
        super().__init__()
        self.normalizer, self.models, self.average = normalizer, nn.ModuleList(models), average

    def forward(self, pixels: Tensor) -> Tensor:
        images = self.normalizer(pixels)
        logits = torch.stack([model(images) for model in self.models])
        return logits.mean(0).sigmoid() if self.average == "logit" else logits.sigmoid().mean(0)


def export_run(
    run: TrainedRun, *, kind: Format, half: bool, average: bool, on_file: Callable[[Path, float], None]
) -> None:
    """Write one file per model beside its weights, or with `average` one file with the mean of all into the run.

    Each file is compared with torch on training images, in batches of 1, 2 and 7.

    Args:
        run: finished.
        kind: the format.
        half: store the weights in half precision; the computation stays in float32.
        average: whether to write one file with the average of all models by `predict.average`.
        on_file: called with each file and the largest difference of a probability.

    Raises:
        RunError: the run is a blend; or a network differs from torch's by more than 1e-4, or with `half` by 1e-2 or in
            a decision; its file is not written.
    """
    require_models([run])
    pixels = _some_images(run)
    weights = [model.weights for model in run.models]
    loaded = [load_model(path, device=torch.device("cpu")) for path in weights]
    name = f"model{SUFFIXES[kind]}"
    groups = {path.with_name(name): slice(number, number + 1) for number, path in enumerate(weights)}
    rule = read_decision_rule(run, row_rules(run.config.submission, run.config.competition, run.labels))
    for path, part in ({run.folder.path / name: slice(None)} if average else groups).items():
        digests = tuple(map(digest_of, weights[part]))
        facts = ExportFacts(labels=run.labels, images=run.config.images, half=half, weights_sha256=digests)
        whole = _Whole(loaded[0].normalizer, [each.model for each in loaded[part]], run.config.predict.average).eval()
        on_file(path, _export(whole, path, pixels, facts, lambda values: rule.calibrated(values) >= rule.thresholds))


def _some_images(run: TrainedRun) -> Tensor:
    """Seven training images, uint8 (7, C, H, W); fewer are repeated."""
    paths = read_train(run.config.competition, ignore).paths[: max(_BATCHES)]
    images = EvalImages(paths, forms=[image_form(run.config.images)])
    return torch.stack([images[number % len(paths)].images[0] for number in range(max(_BATCHES))]).contiguous()


def _export(whole: nn.Module, path: Path, pixels: Tensor, facts: ExportFacts, decide: _Decide) -> float:
    """Write the file `path` once it is compared; returns the largest difference of its probabilities.

    The older exporter of torch reads more networks and is ten times faster; where it fails, the newer one is tried.
    """
    problems = []
    for newer in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder) / path.name
            try:
                _write(whole, draft, pixels, facts, newer=newer)
                difference = _compare(whole, draft, pixels, facts.half, decide)
            except ImportError as error:
                raise RunError(f"an export needs a library: {error}", remedy="pip install '.[export]'") from None
            except Exception as error:  # noqa: BLE001 (exporters raise errors of any type)
                problems.append(str(error).split("\n")[0][:200])
                continue
            for suffix in (*((".bin",) if path.suffix == ".xml" else ()), path.suffix):
                written = draft.with_suffix(suffix)
                write_atomically(path.with_suffix(suffix), functools.partial(shutil.copyfile, written))
            return difference
    raise RunError(
        f"{path}: the network cannot be exported; nothing is written",
        expected=f"probabilities that differ by at most {_TOLERANCE[facts.half]:g} from torch's",
        got="; ".join(problems),
        remedy="keep predict.engine=torch for this network" + (", or leave --half out" if facts.half else ""),
    )


def _write(whole: nn.Module, path: Path, pixels: Tensor, facts: ExportFacts, *, newer: bool) -> None:
    import onnx

    if newer:
        free: dict[str, Any] = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    else:
        free = {"opset_version": _OPSET, "dynamic_axes": {"pixels": {0: "batch"}, "probabilities": {0: "batch"}}}
    source = path.with_suffix(".onnx")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the older exporter is deprecated, and both warn of shapes that are constants
        whole(pixels[:2])  # computes the positions, which an exporter cannot
        torch.onnx.export(
            whole,
            (pixels[:2],),
            str(source),
            input_names=["pixels"],
            output_names=["probabilities"],
            dynamo=newer,
            external_data=False,
            verbose=False,
            **free,
        )
    text = facts.model_dump_json()
    if path.suffix == ".xml":
        openvino = import_openvino()
        converted = openvino.Core().read_model(source)
        converted.set_rt_info(text, [FACTS])
        openvino.save_model(converted, path, compress_to_fp16=facts.half)
        return
    network = onnx.load(source)
    if facts.half:
        _halve(network.graph)
    onnx.helper.set_model_props(network, {FACTS: text})
    onnx.save(network, source)


def _halve(graph: Any) -> None:
    """Store the large float32 tensors of an ONNX graph as float16, each with a cast back, folded when it is loaded."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type == TensorProto.FLOAT and values.size >= _LEAST:
            casts.append(helper.make_node("Cast", [f"{tensor.name}_half"], [tensor.name], to=TensorProto.FLOAT))
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{tensor.name}_half"))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _compare(whole: nn.Module, path: Path, pixels: Tensor, half: bool, decide: _Decide) -> float:
    """The largest difference of a probability from torch's. Raises ValueError where it is too large."""
    exported, largest = load_exported(path).model, 0.0
    for size in _BATCHES:
        with torch.inference_mode():
            wanted, got = whole(pixels[:size]).double().numpy(), exported(pixels[:size]).sigmoid().numpy()
        difference = float(np.abs(wanted - got).max()) if wanted.shape == got.shape else math.inf
        if not difference <= _TOLERANCE[half] or (half and (decide(wanted) != decide(got)).any()):
            raise ValueError(f"a probability of a batch of {size} differs by {difference:.2g}, or a decision")
        largest = max(largest, difference)
    return largest
