"""The state of an unfinished training on disk: one safetensors file, written whole or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.model.weights import load_tensors, save_tensors
from pipeline.training.loop import EpochTotals, Training


def save_training(path: Path, training: Training) -> None:
    """Write the whole state, which `resume_training` goes on from."""
    scaler = training.accelerator.scaler
    save_training_state(
        path,
        model=training.model,
        ema=training.ema.module,
        optimizer=training.optimizer.optimizer,
        facts={
            "records": training.records,
            "sums": dataclasses.asdict(training.totals),
            "schedule": training.schedule.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
        },
    )


def resume_training(path: Path, training: Training) -> None:
    """Put the state saved at `path` into `training`; without a file nothing changes."""
    if not path.exists():
        return
    facts = load_training_state(
        path, model=training.model, ema=training.ema.module, optimizer=training.optimizer.optimizer
    )
    training.records, training.totals = facts["records"], EpochTotals(**facts["sums"])
    training.schedule.load_state_dict(facts["schedule"])
    if training.accelerator.scaler is not None and facts["scaler"] is not None:
        training.accelerator.scaler.load_state_dict(facts["scaler"])


def save_training_state(
    path: Path,
    *,
    model: nn.Module,
    ema: nn.Module,
    optimizer: torch.optim.Optimizer,
    facts: Mapping[str, Any],
) -> None:
    """Write one file with weights, averaged weights, the state of the optimizer, and `facts`."""
    state = optimizer.state_dict()
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"ema.{name}": tensor for name, tensor in ema.state_dict().items()}
    for index, slots in state["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": value for slot, value in slots.items()}
    save_tensors(path, tensors, {**facts, "param_groups": state["param_groups"]})


def load_training_state(
    path: Path, *, model: nn.Module, ema: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put the state saved by `save_training_state` into the three objects; returns its facts."""
    tensors, facts = load_tensors(path)
    model.load_state_dict(_with_prefix(tensors, "model."))
    ema.load_state_dict(_with_prefix(tensors, "ema."))
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in _with_prefix(tensors, "optimizer.").items():
        index, slot = name.split(".", 1)
        slots.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": slots, "param_groups": facts.pop("param_groups")})
    for parameter, state in optimizer.state.items():
        for slot, value in state.items():
            if value.shape == parameter.shape:  # back into the parameter's memory format, which fused steps need
                state[slot] = torch.empty_like(parameter).copy_(value)
    return facts


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
