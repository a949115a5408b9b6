"""The state of an unfinished training on disk: one safetensors file, written whole or not at all."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import RunError, shown
from pipeline.model.weights import load_tensors, save_tensors
from pipeline.training.loop import EpochTotals, Training


def save_training(path: Path, training: Training) -> None:
    """Write everything that `resume_training` needs: weights, their average, optimizer, schedule, records."""
    state, scaler = training.optimizer.optimizer.state_dict(), training.accelerator.scaler
    tensors = {f"model.{name}": tensor for name, tensor in training.model.state_dict().items()}
    tensors |= {f"ema.{name}": tensor for name, tensor in training.ema.module.state_dict().items()}
    for index, slots in state["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
    facts = {
        "records": training.records,
        "sums": dataclasses.asdict(training.totals),
        "schedule": training.schedule.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else None,
        "param_groups": state["param_groups"],
    }
    save_tensors(path, tensors, facts)


def resume_training(path: Path, training: Training) -> None:
    """Put the state saved at `path` into `training`; without a file nothing changes.

    Raises:
        RunError: the file is damaged, or holds the state of another training.
    """
    if not path.exists():
        return
    tensors, facts = load_tensors(path)
    try:
        _resume(tensors, facts, training)
    except (AttributeError, LookupError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} does not hold the state of this training",
            got=str(error)[:200],
            remedy=f"delete it, and the same command begins this model anew: rm {shlex.quote(str(path))}",
        ) from None


def _resume(tensors: Mapping[str, Tensor], facts: Mapping[str, Any], training: Training) -> None:
    optimizer, schedule = training.optimizer.optimizer, training.schedule
    _require_alike(facts["param_groups"], optimizer.state_dict()["param_groups"])
    _require_alike(facts["schedule"], schedule.state_dict())
    _require_alike(facts["sums"], dataclasses.asdict(training.totals))
    if not all(record["epoch"] == number for number, record in enumerate(facts["records"], start=1)):
        raise ValueError("expected a record for each epoch from 1 on")
    training.model.load_state_dict(_with_prefix(tensors, "model."))
    training.ema.module.load_state_dict(_with_prefix(tensors, "ema."))
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in _with_prefix(tensors, "optimizer.").items():
        index, slot = name.split(".", 1)
        slots.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": slots, "param_groups": facts["param_groups"]})
    for parameter, state in optimizer.state.items():
        for slot, value in state.items():
            if value.shape != parameter.shape and value.numel() != 1:
                raise ValueError(f"a state of shape {tuple(value.shape)} for a weight of {tuple(parameter.shape)}")
            if value.shape == parameter.shape:  # back into the parameter's memory format, which fused steps need
                state[slot] = torch.empty_like(parameter).copy_(value)
    training.records, training.totals = facts["records"], EpochTotals(**facts["sums"])
    schedule.load_state_dict(facts["schedule"])
    if training.accelerator.scaler is not None and facts["scaler"] is not None:
        training.accelerator.scaler.load_state_dict(facts["scaler"])


def _require_alike(saved: Any, own: Any) -> None:
    """Raise ValueError where `saved` has not the keys, lengths and numbers of `own`."""
    if isinstance(own, Mapping):
        if not isinstance(saved, Mapping) or saved.keys() != own.keys():
            raise ValueError(f"expected the keys {list(own)}")
        for key, value in own.items():
            _require_alike(saved[key], value)
    elif isinstance(own, list | tuple):
        if not isinstance(saved, list) or len(saved) != len(own):
            raise ValueError(f"expected a list of {len(own)}")
        for one, value in zip(saved, own, strict=True):
            _require_alike(one, value)
    elif type(own) in (int, float) and type(saved) not in (int, float):
        raise ValueError(f"expected a number, got {shown(saved)}")


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
