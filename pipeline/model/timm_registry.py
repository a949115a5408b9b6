"""timm's registry of networks: their names, old names, and where their published weights are."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

import timm
import torch
from huggingface_hub import constants
from timm.models import _registry, split_model_name_tag

from pipeline.errors import ConfigError, listing, nearest
from pipeline.files import parse_json
from pipeline.machine import regular


def current_name(name: str) -> str:
    """The name that timm uses today for the network `name`.

    It may add a tag of weights, because many old names meant one set of weights. A tag in `name` is kept.
    """
    architecture, tag = split_model_name_tag(name)
    current = _registry._deprecated_models.get(architecture)
    if not current:
        return name
    return f"{split_model_name_tag(current)[0]}.{tag}" if tag else current


def same_architecture(first: str, second: str) -> bool:
    """Whether two names mean one network; tags are ignored."""
    return split_model_name_tag(current_name(first))[0] == split_model_name_tag(current_name(second))[0]


def check_name(name: str) -> None:
    """Refuse all but registered architectures: timm would also read a folder or a hub that a config names."""
    architecture, tag = split_model_name_tag(name)
    known = timm.list_models()
    if architecture not in known:
        raise ConfigError(
            f"unknown model.backbone '{name}'{nearest(architecture, known)}",
            expected="the name of a network in timm",
            remedy=_remedy_for_place(name, known)
            if ":" in name
            else 'list them with python -c "import timm; print(timm.list_models())"',
        )
    tagged = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tagged:
        raise ConfigError(
            f"model.backbone '{name}' has no weights of that tag{nearest(name, tagged)}",
            expected=listing(tagged, limit=8) or f"{architecture} without a tag",
            remedy="choose a tag from the list, or leave it out for timm's default",
        )


def _remedy_for_place(name: str, known: Collection[str]) -> str:
    """The keys that mean the same as timm's name of a folder or a hub, such as local-dir:FOLDER or hf-hub:timm/X."""
    place = name.partition(":")[2]
    architecture = place.rpartition("/")[2]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        architecture = str(parse_json(regular(Path(place) / "config.json").read_text(encoding="utf-8"))["architecture"])
    if split_model_name_tag(architecture)[0] not in known:
        return "set model.backbone to the architecture, and model.backbone_weights to the file or folder"
    return f"set model.backbone={architecture}" + (
        f" and model.backbone_weights={place}" if Path(place).exists() else ""
    )


def remedy_without_network(name: str) -> str:
    """The remedy where weights cannot be downloaded: the file to copy, timm's cache folder, the keys to set."""
    source = timm.get_pretrained_cfg(name)
    if source is not None and source.hf_hub_id:
        file, origin = source.hf_hub_filename or "model.safetensors", f"the model hub, id {source.hf_hub_id}"
        cache = Path(constants.HF_HUB_CACHE) / f"models--{source.hf_hub_id.replace('/', '--')}"
    elif source is not None and source.url:
        origin = source.url if isinstance(source.url, str) else source.url[0]
        file, cache = origin.rsplit("/", 1)[-1], Path(torch.hub.get_dir()) / "checkpoints"
    else:
        return "timm has no weights for this network: set model.pretrained=false, or choose another model.backbone"
    return (
        f"bring the file {file} (from {origin}) and set model.backbone_weights to its path; "
        f"or connect to the network once, and timm keeps a copy under {cache}; or set model.pretrained=false"
    )
