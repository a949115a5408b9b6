"""From the config to the objects of one fold's training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from pipeline.config import Config, LossConfig
from pipeline.device import pick_device, resolve_precision
from pipeline.model.build import build_normalizer
from pipeline.model.start import start_model
from pipeline.runs import FoldFolder
from pipeline.seeds import stable_seed
from pipeline.training.checkpoint import load_training_state, save_training_state
from pipeline.training.ema import WarmEma
from pipeline.training.losses import LOSSES, MultiLabelLoss
from pipeline.training.optim import build_optimizer, build_schedule


def build_loss(config: LossConfig) -> MultiLabelLoss:
    """The loss that `config` names, with the parameters that are its own."""
    parameters: dict[str, dict[str, Any]] = {
        "asl": {"gamma_neg": config.gamma_neg, "gamma_pos": config.gamma_pos, "clip": config.clip},
        "bce": {"pos_weight": config.pos_weight},
        "focal": {"gamma": config.gamma, "alpha": config.alpha},
    }
    if config.name != "bce":  # which has no focusing weight
        parameters[config.name]["differentiate_weight"] = config.differentiate_weight
    return LOSSES[config.name](**parameters[config.name])


@dataclass
class Training:
    """The objects of one fold's training, and the records of its finished epochs."""

    accelerator: Accelerator
    model: nn.Module  # as built, on the device
    prepared: nn.Module  # the same weights, wrapped by Accelerate
    ema: WarmEma
    normalizer: nn.Module
    optimizer: Any  # Accelerate's wrapper around AdamW
    schedule: torch.optim.lr_scheduler.LambdaLR
    records: list[dict[str, Any]]

    def save(self, folder: FoldFolder) -> None:
        """Write the whole state, so that a killed run goes on from here."""
        scaler = self.accelerator.scaler
        save_training_state(
            folder.checkpoint,
            model=self.model,
            ema=self.ema.module,
            optimizer=self.optimizer.optimizer,
            facts={
                "records": self.records,
                "schedule": self.schedule.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else None,
            },
        )

    def resume(self, folder: FoldFolder) -> None:
        """Go back to the saved state, if there is one."""
        if not folder.checkpoint.exists():
            return
        facts = load_training_state(
            folder.checkpoint, model=self.model, ema=self.ema.module, optimizer=self.optimizer.optimizer
        )
        self.records = facts["records"]
        self.schedule.load_state_dict(facts["schedule"])
        if self.accelerator.scaler is not None and facts["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(facts["scaler"])


def build_training(config: Config, *, fold: int, labels: Sequence[str], total_steps: int) -> Training:
    """Build one fold's network, average, optimizer and schedule on the device, seeded by the fold."""
    precision = resolve_precision(config.train.precision, pick_device())
    accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision)
    torch.manual_seed(stable_seed(config.train.seed, fold, "weights"))
    model, _ = start_model(config.model, config.images, labels=labels)
    normalizer = build_normalizer(config.images, model).to(accelerator.device)
    model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = WarmEma(model, decay=config.train.ema_decay)
    optimizer = build_optimizer(model, lr=config.train.lr, weight_decay=config.train.weight_decay)
    schedule = build_schedule(optimizer, total=total_steps, warmup=config.train.warmup, schedule=config.train.schedule)
    prepared, wrapped = accelerator.prepare(model, optimizer)
    if config.train.compile:
        prepared.compile()  # in place, after the average was copied: names of weights stay as they are
    return Training(accelerator, model, prepared, ema, normalizer, wrapped, schedule, records=[])
