"""Files that a backbone can start from: state dicts of timm, folders of a model hub, weights of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.errors import ConfigError, listing
from pipeline.files import parse_json
from pipeline.machine import regular
from pipeline.model.normalize import read_statistics
from pipeline.model.official.checkpoint import read_checkpoint

KEY = "model.backbone_weights"
_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")  # in a folder, in this order
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pth.tar")
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "teacher", "net")


class BackboneFile(NamedTuple):
    """The tensors of a file, and what it or its folder records of the network."""

    path: Path
    state: dict[str, Tensor]
    architecture: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    part: str = ""  # the key that the state dict has in the file; empty if the file is the state dict


def read_backbone_file(location: str) -> BackboneFile:
    """Read a file or a folder ("~" is the home folder) without executing anything in it.

    Raises:
        ConfigError: it is missing or unreadable, or holds no tensors.
    """
    path = Path(location).expanduser()
    return _read_folder(path) if path.is_dir() else _read_file(path)


def _read_folder(folder: Path) -> BackboneFile:
    try:
        config = parse_json(regular(folder / "config.json").read_text(encoding="utf-8"))
        architecture = str(config["architecture"])
        mean, std = read_statistics(config.get("pretrained_cfg", config))
        path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
        if path is None:
            raise FileNotFoundError(f"no weights file {' or '.join(_FILES)}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        files = sorted(path.name for path in folder.iterdir())
        parts = any(name.endswith(".index.json") for name in files)
        raise ConfigError(
            f"{KEY}: {folder} is no folder of a timm network from a model hub",
            expected="config.json with architecture, and pretrained_cfg with mean and std, beside a weights file",
            got=f"{type(error).__name__}: {error}; files: {listing(files) or 'none'}",
            remedy="save the weights, now in several parts, as one model.safetensors"
            if parts
            else f"point {KEY} to the weights file itself",
        ) from None
    return _read_file(path)._replace(architecture=architecture, mean=mean, std=std)


def _read_file(path: Path) -> BackboneFile:
    if not path.is_file() or not path.name.endswith(_SUFFIXES):
        raise ConfigError(
            f"{KEY}: " + (f"{path} is no weights file" if path.exists() else f"there is no {path}"),
            expected=f"a file that ends in {listing(_SUFFIXES)}, or a folder with config.json and such a file",
            got=path.name if path.exists() else f"working folder {Path.cwd()}",
            remedy=f"correct {KEY}; a relative path starts from the working folder",
        )
    file = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    if not file.state:
        raise ConfigError(f"{KEY}: {path} holds no tensors", remedy="bring a state dict, best as safetensors")
    return file


def _safetensors(path: Path) -> BackboneFile:
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            facts = parse_json((file.metadata() or {}).get("facts", "{}"))
        if not facts:
            return BackboneFile(path, state)
        images = facts["images"]
        mean, std = read_statistics(images if images["mean"] and images["std"] else facts.get("pixels", {}))
        return BackboneFile(path, state, str(facts["model"]["backbone"]), mean, std)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{KEY}: {path} is not readable as safetensors",
            got=f"{type(error).__name__}: {error}",
            remedy="bring the file again, whole",
        ) from None


def _pickled(path: Path) -> BackboneFile:
    content = read_checkpoint(
        path, remedy="check the file; where it holds more than tensors and numbers, save its state dict as safetensors"
    )
    part = ""
    while inner := next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None):
        content, part = content[inner], inner
    return BackboneFile(path, {str(name): value for name, value in content.items() if is_plain(value)}, part=part)


def is_plain(value: object) -> bool:
    """Whether this is a tensor with values, neither sparse nor quantized."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not (value.is_meta or value.is_quantized)
