"""From the config to the objects of one fold's training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from pipeline import processes
from pipeline.config import Config, LossConfig
from pipeline.device import pick_device, resolve_precision
from pipeline.errors import ConfigError, listing, nearest
from pipeline.events import ignore
from pipeline.model.build import backbone_of, build_normalizer, start_model
from pipeline.model.shared_norm import share_batch_norms
from pipeline.seeds import stable_seed
from pipeline.training.checkpoint import load_training_state, save_training_state
from pipeline.training.fold_folder import FoldFolder
from pipeline.training.loop import EpochSums, Learner
from pipeline.training.losses import LOSSES, MultiLabelLoss
from pipeline.training.mixing import BatchMixer
from pipeline.training.optim import WarmEma, build_optimizer, build_schedule


def build_loss(config: LossConfig, *, labels: Sequence[str]) -> MultiLabelLoss:
    """The loss that `config` names, with the parameters that are its own.

    Args:
        config: the loss section; a parameter may be a mapping from each label to its number.
        labels: the K labels in the order of the logits.

    Raises:
        ConfigError: such a mapping names an unknown label or lacks one.
    """
    parameters: dict[str, dict[str, Any]] = {
        "asl": {name: _in_order(name, getattr(config, name), labels) for name in ("gamma_neg", "gamma_pos", "clip")},
        "bce": {"pos_weight": config.pos_weight},
        "focal": {"gamma": config.gamma, "alpha": config.alpha},
    }
    if config.name != "bce":  # which has no focusing weight
        parameters[config.name]["differentiate_weight"] = config.differentiate_weight
    return LOSSES[config.name](**parameters[config.name])


def _in_order(name: str, value: float | Mapping[str, float], labels: Sequence[str]) -> float | list[float]:
    if not isinstance(value, Mapping):
        return value
    unknown = [label for label in value if label not in labels]
    missing = [label for label in labels if label not in value]
    if unknown or missing:
        hint = nearest(unknown[0], labels) if unknown else ""
        raise ConfigError(
            f"loss.{name} does not fit the labels",
            expected="one number for each label",
            got=f"no number for {listing(missing)}" if missing else f"an unknown label '{unknown[0]}'{hint}",
            remedy=f"name every label in loss.{name}, or set it to one number",
        )
    return [value[label] for label in labels]


@dataclass
class Training(Learner):
    """What learns in one fold, and how far it is.

    Attributes:
        model: as built, on the device; `prepared` has the same weights.
        records: of the finished epochs.
        sums: of the epoch that is under way.
    """

    model: nn.Module
    records: list[dict[str, Any]] = field(default_factory=list)
    sums: EpochSums = field(default_factory=EpochSums)

    def freeze_backbone(self, frozen: bool) -> None:
        """Train only what follows the backbone, or all of the model again."""
        backbone_of(self.model).hold(frozen)

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
                "sums": dataclasses.asdict(self.sums),
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
        self.sums = EpochSums(**facts["sums"])
        self.schedule.load_state_dict(facts["schedule"])
        if self.accelerator.scaler is not None and facts["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(facts["scaler"])


def build_training(config: Config, *, fold: int, labels: Sequence[str], total_steps: int) -> Training:
    """Build one fold's network, average, optimizer and schedule on the device, seeded by the fold."""
    torch.manual_seed(stable_seed(config.train.seed, fold, "weights"))
    model = start_model(config.model, config.images, labels=labels, listen=ignore)
    normalizer = build_normalizer(config.images, model)
    training = training_of(model, normalizer, config=config, labels=labels, total_steps=total_steps)
    training.mixer = BatchMixer(**config.augment.mix.model_dump())
    return training


def training_of(
    model: nn.Module, normalizer: nn.Module, *, config: Config, labels: Sequence[str], total_steps: int
) -> Training:
    """What trains `model`, a fresh network on the CPU, on the device: average, loss, optimizer and schedule."""
    precision = resolve_precision(config.train.precision, pick_device())
    accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision)
    normalizer.to(accelerator.device)
    model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = WarmEma(model, decay=config.train.ema_decay)
    train = config.train
    if processes.count() > 1:  # after the average was copied, which only evaluates
        share_batch_norms(model)
    optimizer = build_optimizer(
        model,
        lr=train.lr,
        weight_decay=train.weight_decay,
        backbone_lr=train.backbone_lr,
        layer_decay=train.layer_decay,
    )
    schedule = build_schedule(optimizer, total=total_steps, warmup=config.train.warmup, schedule=config.train.schedule)
    # As `prepare` does it, but never wrapped for several processes: the engine adds up their gradients once a step.
    prepared, wrapped = accelerator.prepare_model(model, evaluation_mode=True), accelerator.prepare(optimizer)
    if train.gradient_checkpointing:
        backbone_of(model).checkpoint_gradients()
    if train.compile:
        prepared.compile()  # in place, after the average was copied: names of weights stay as they are
    return Training(
        accelerator=accelerator,
        prepared=prepared,
        ema=ema,
        normalizer=normalizer,
        loss_function=build_loss(config.loss, labels=labels),
        optimizer=wrapped,
        schedule=schedule,
        accumulate=train.accumulate,
        clip_grad=train.clip_grad,
        model=model,
    )
