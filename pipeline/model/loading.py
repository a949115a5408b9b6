"""Loads the weights of a model with other labels, label by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, listing

_PER_LABEL = ("query_embed", "classifier.weight", "classifier.bias")  # one row for every label
_OPTIONAL = "num_batches_tracked"  # a counter that batch norm does not need


class LoadReport(NamedTuple):
    """The result of loading a checkpoint, tensor by tensor.

    Attributes:
        used: names in the checkpoint whose tensors are now in the model.
        ignored: names in the checkpoint that were left out, each with the reason.
        missing: names in the model that kept their fresh values, for all or for some labels.
    """

    used: tuple[str, ...]
    ignored: dict[str, str]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        """One line on the used tensors, one per ignored tensor, one on the missing ones."""
        lines = [f"{len(self.used)} tensors used"]
        lines += [f"ignored {name}: {reason}" for name, reason in self.ignored.items()]
        lines += [f"missing, left as it was: {listing(self.missing, limit=20)}"] if self.missing else []
        return "\n".join(lines)


def load_for_labels(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    labels: Sequence[str],
    source_labels: Sequence[str] | None,
) -> LoadReport:
    """Load the tensors of a model with other labels into `model`.

    A query and a classifier row are copied to the label of the same name; a label that the source lacks keeps its
    fresh values. Queries shared by groups of labels have no meaning for other groups: they and the classifier are
    loaded only where the labels are the same in the same order.

    Args:
        model: changed in place.
        tensors: a state dict with the names of this project.
        labels: K names, in the order of the model's outputs.
        source_labels: the same for `tensors`; None where they are not known.

    Raises:
        ConfigError: no tensor fits.
    """
    own = model.state_dict()
    used, ignored, missing = [], {}, set(own) - set(tensors)
    for name, tensor in tensors.items():
        reason = _reason(name, tensor, own, labels, source_labels)
        if reason is not None:
            ignored[name] = reason
            missing |= {name} & set(own)
            continue
        if name in _PER_LABEL and source_labels is not None and list(labels) != list(source_labels):
            fresh = _copy_rows(own[name], tensor, labels, source_labels)
            missing |= {name} if fresh else set()
        else:
            own[name].copy_(tensor)
        used.append(name)
    if not used:
        raise ConfigError(
            "model.weights: not one tensor of the checkpoint fits this model",
            expected=listing(own),
            got=listing(tensors),
            remedy="use a checkpoint of the same model.backbone and model.hidden_dim",
        )
    return LoadReport(tuple(used), ignored, tuple(sorted(name for name in missing if _OPTIONAL not in name)))


def _reason(
    name: str,
    tensor: Tensor,
    own: Mapping[str, Tensor],
    labels: Sequence[str],
    source_labels: Sequence[str] | None,
) -> str | None:
    """The reason why this tensor cannot be loaded, or None."""
    if name not in own:
        return "the model has no such part"
    if name not in _PER_LABEL or (source_labels is not None and list(labels) == list(source_labels)):
        same = tensor.shape == own[name].shape
        return None if same else f"shape {tuple(tensor.shape)}, the model has {tuple(own[name].shape)}"
    if source_labels is None:
        return "one row per label, and the checkpoint's label names are not known"
    queries = own.get("query_embed")
    if len(tensor) != len(source_labels) or (queries is not None and len(queries) != len(labels)):
        return "belongs to groups of labels, and the labels differ"
    if tensor.shape[1:] != own[name].shape[1:]:
        return f"rows of shape {tuple(tensor.shape[1:])}, the model has {tuple(own[name].shape[1:])}"
    return None if set(labels) & set(source_labels) else "no label of the same name"


def _copy_rows(target: Tensor, source: Tensor, labels: Sequence[str], source_labels: Sequence[str]) -> int:
    """Copy the rows of the labels known to both; returns the number of labels without one."""
    rows = {label: row for row, label in enumerate(source_labels)}
    pairs = [(row, rows[label]) for row, label in enumerate(labels) if label in rows]
    target_rows, source_rows = (torch.tensor(column) for column in zip(*pairs, strict=True))
    target[target_rows] = source[source_rows].to(target)
    return len(labels) - len(pairs)
