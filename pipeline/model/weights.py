"""Weights on disk: safetensors with JSON facts in the metadata, never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.config import ImagesConfig, ModelConfig
from pipeline.errors import RunError, listing
from pipeline.files import parse_json, write_atomically
from pipeline.model.backbone import Backbone
from pipeline.model.build import backbone_of, build_model, build_normalizer
from pipeline.model.loading import LoadReport, load_for_labels
from pipeline.model.normalize import PixelNormalizer, read_statistics
from pipeline.model.official.checkpoint import load_official_checkpoint


class TrainedModel(NamedTuple):
    """A model as it was trained, with all that is needed to use it."""

    model: nn.Module
    normalizer: PixelNormalizer
    labels: tuple[str, ...]
    images: ImagesConfig


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write `tensors` with `facts` (JSON-able) as one safetensors file, whole or not at all."""
    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    metadata = {"facts": json.dumps(facts, ensure_ascii=False)}

    def write(temporary: Path) -> None:
        try:
            save_file(plain, temporary, metadata=metadata)
        except SafetensorError as error:  # its own name for a full disk
            raise OSError(str(error)) from error

    write_atomically(path, write)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a file made by `save_tensors`.

    Raises:
        RunError: the file is missing or broken, or holds a number that is not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            facts = parse_json((file.metadata() or {})["facts"])
    except KeyError:
        raise RunError(
            f"{path} holds no weights of this pipeline",
            remedy="restore the file, or train again with --fresh; other weights of a backbone belong in "
            "model.backbone_weights",
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
    """What `load_model` needs beside the tensors."""
    facts: dict[str, Any] = {
        "labels": list(labels),
        "model": model.model_dump(mode="json"),
        "images": images.model_dump(mode="json"),
    }
    if model.backbone_weights is not None:  # its mean and std may come from there
        facts["pixels"] = {"mean": backbone.mean, "std": backbone.std}
    return facts


def start_from(model: nn.Module, path: Path, *, labels: Sequence[str]) -> LoadReport:
    """Start `model`, for `labels`, from a file of ours (`.safetensors`) or an official checkpoint (any other name).

    Queries and classifier rows are taken for labels of the same name and stay fresh for the others; an
    official checkpoint does not name its labels, so all of them stay fresh.

    Raises:
        ConfigError, RunError: the file is missing, broken, or nothing in it fits.
    """
    if path.suffix == ".safetensors":
        tensors, facts = load_tensors(path)
        return load_for_labels(model, tensors, labels=labels, source_labels=facts.get("labels"))
    official = load_official_checkpoint(path)
    return load_for_labels(model, official.state_dict(), labels=labels, source_labels=official.label_names)


def load_model(path: Path, *, device: torch.device) -> TrainedModel:
    """The model saved at `path`, in evaluation mode on `device`; nothing but that file is read.

    Raises:
        RunError: the file is missing, broken, or does not hold the model its facts describe.
    """
    tensors, facts = load_tensors(path)
    try:
        config = ModelConfig.model_validate(facts["model"])
        images = ImagesConfig.model_validate(facts["images"])
        labels = tuple(str(name) for name in facts["labels"])
        mean, std = read_statistics(facts.get("pixels", {}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # a ValidationError is a ValueError
        raise RunError(f"{path}: its facts describe no model: {error}", remedy="train again with --fresh") from None
    model = build_model(config, images, num_labels=len(labels), pretrained=False)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunError(
            f"{path}: the tensors do not fit the model: {listing(str(error).splitlines(), 3)}",
            remedy="use the version of the pipeline that trained it, or train again with --fresh",
        ) from None
    backbone = backbone_of(model)
    backbone.mean, backbone.std = mean or backbone.mean, std or backbone.std
    normalizer = build_normalizer(images, model).to(device)
    model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return TrainedModel(model, normalizer, labels, images)
