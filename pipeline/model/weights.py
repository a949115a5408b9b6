"""Weight files: safetensors with JSON facts in the metadata; no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.config import ImagesConfig, ModelConfig
from pipeline.errors import RunError, listing
from pipeline.files import parse_json, write_atomically
from pipeline.machine import regular
from pipeline.model.backbone import Backbone


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write `tensors` and the JSON values `facts` as one safetensors file, whole or not at all."""
    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    metadata = {"facts": json.dumps(facts, ensure_ascii=False)}

    def write(temporary: Path) -> None:
        try:
            save_file(plain, temporary, metadata=metadata)
        except SafetensorError as error:  # raised where the disk is full
            raise OSError(str(error)) from error

    write_atomically(path, write)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a file made by `save_tensors`.

    Raises:
        RunError: the file is missing or broken, or holds a number that is not finite.
    """
    try:
        with safe_open(regular(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            facts = parse_json((file.metadata() or {})["facts"])
    except KeyError:
        raise RunError(
            f"{path} holds no weights of this pipeline",
            remedy="restore the file, or train again with --fresh; for the weights of a backbone alone leave "
            f"model.weights out and set model.backbone_weights={path}",
        ) from None
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(
            f"{path}: not readable as weights of this pipeline: {error}",
            remedy="restore the file, or train again with --fresh",
        ) from None
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise RunError(
            f"{path} holds weights that are not finite numbers",
            got=f"in {listing(bad)}",
            remedy="restore the file, or train again with --fresh",
        )
    return tensors, facts


def model_facts(
    model: ModelConfig, images: ImagesConfig, labels: tuple[str, ...], backbone: Backbone
) -> dict[str, Any]:
    """The facts from which `load_model` builds the network again."""
    facts: dict[str, Any] = {
        "labels": list(labels),
        "model": model.model_dump(mode="json"),
        "images": images.model_dump(mode="json"),
    }
    if model.backbone_weights is not None:  # mean and std may come from that file
        facts["pixels"] = {"mean": backbone.mean, "std": backbone.std}
    return facts
