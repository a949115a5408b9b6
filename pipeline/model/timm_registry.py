"""timm's registry of networks: renamed ones, and where published weights lie."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from huggingface_hub import constants
from timm.models import _registry, split_model_name_tag


def current_name(name: str) -> str:
    """The name that timm uses today for the network `name`; `name` itself where timm did not rename it.

    The new name may carry a tag of weights, because old names often meant one set of weights. A tag in `name` wins.
    """
    architecture, tag = split_model_name_tag(name)
    current = _registry._deprecated_models.get(architecture)
    if not current:
        return name
    return f"{split_model_name_tag(current)[0]}.{tag}" if tag else current


def same_architecture(first: str, second: str) -> bool:
    """Whether two names mean one network, apart from tags and renaming."""
    return split_model_name_tag(current_name(first))[0] == split_model_name_tag(current_name(second))[0]


def remedy_without_network(name: str) -> str:
    """The remedy for weights that cannot be downloaded: the file to bring, its place in the cache, the keys to set."""
    source = timm.get_pretrained_cfg(name)
    if source is not None and source.hf_hub_id:
        file = source.hf_hub_filename or "model.safetensors"
        origin = f"from the model hub, id {source.hf_hub_id}"
        cache = Path(constants.HF_HUB_CACHE) / f"models--{source.hf_hub_id.replace('/', '--')}"
    elif source is not None and source.url:
        url = source.url if isinstance(source.url, str) else source.url[0]
        file, origin = url.rsplit("/", 1)[-1], f"from {url}"
        cache = Path(torch.hub.get_dir()) / "checkpoints"
    else:
        return "timm has no weights for this network: set model.pretrained=false, or choose another model.backbone"
    return (
        f"bring the file {file} ({origin}) and set model.backbone_weights to its path; "
        f"or connect to the network once, and timm keeps a copy under {cache}; or set model.pretrained=false"
    )
