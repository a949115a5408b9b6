"""The state of an unfinished training on disk: one safetensors file, written whole or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

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
    """Put the state saved at `path` into `training`; without a file nothing changes."""
    if not path.exists():
        return
    tensors, facts = load_tensors(path)
    training.model.load_state_dict(_with_prefix(tensors, "model."))
    training.ema.module.load_state_dict(_with_prefix(tensors, "ema."))
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in _with_prefix(tensors, "optimizer.").items():
        index, slot = name.split(".", 1)
        slots.setdefault(int(index), {})[slot] = value
    optimizer = training.optimizer.optimizer
    optimizer.load_state_dict({"state": slots, "param_groups": facts["param_groups"]})
    for parameter, state in optimizer.state.items():
        for slot, value in state.items():
            if value.shape == parameter.shape:  # back into the parameter's memory format, which fused steps need
                state[slot] = torch.empty_like(parameter).copy_(value)
    training.records, training.totals = facts["records"], EpochTotals(**facts["sums"])
    training.schedule.load_state_dict(facts["schedule"])
    if training.accelerator.scaler is not None and facts["scaler"] is not None:
        training.accelerator.scaler.load_state_dict(facts["scaler"])


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
