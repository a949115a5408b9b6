"""From the config to the objects of one training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from numpy.typing import NDArray
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from pipeline import processes
from pipeline.config import Config, LossConfig
from pipeline.device import pick_device, resolve_precision
from pipeline.errors import ConfigError, listing, nearest
from pipeline.events import ignore
from pipeline.images.readers import ImageSource
from pipeline.model.build import backbone_of, build_normalizer, start_model
from pipeline.model.normalize import MapsToFloat
from pipeline.prediction.predict import Ensemble
from pipeline.prediction.tta import parse_views
from pipeline.seeds import stable_seed
from pipeline.training.distributed import has_unused_parameters
from pipeline.training.loop import Training
from pipeline.training.losses import LOSSES, MultiLabelLoss
from pipeline.training.mixing import BatchMixer
from pipeline.training.optim import WarmEma, build_optimizer, build_schedule

Targets = NDArray[np.float32] | None


def build_loss(config: LossConfig, *, labels: Sequence[str], targets: Targets = None) -> MultiLabelLoss:
    """The loss that `config` names, with the parameters that are its own.

    Args:
        config: the loss section; a parameter may be a mapping from each label to its number.
        labels: the K labels in the order of the logits.
        targets: (N, K) of the training rows; `db` counts the labels in them.

    Raises:
        ConfigError: such a mapping names an unknown label or lacks one.
    """
    parameters: dict[str, dict[str, Any]] = {
        "asl": {name: _in_order(name, getattr(config, name), labels) for name in ("gamma_neg", "gamma_pos", "clip")},
        "bce": {"pos_weight": config.pos_weight},
        "focal": {"gamma": config.gamma, "alpha": config.alpha},
    }
    if config.name == "db":
        assert targets is not None
        parameters["db"] = {
            "trained": torch.tensor(targets),
            "alpha": config.rebalance_alpha,
            "beta": config.rebalance_beta,
            "mu": config.rebalance_mu,
            "lambda_": config.tolerance_lambda,
            "kappa": config.tolerance_kappa,
            "gamma": config.gamma,
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


def build_training(
    config: Config, *, fold: int, labels: Sequence[str], total_steps: int, targets: Targets = None
) -> Training:
    """Build one fold's network, average, optimizer and schedule on the device, seeded by the fold.

    `targets` (N, K) are those of its training rows; see `build_loss`.
    """
    torch.manual_seed(stable_seed(config.train.seed, fold, "weights"))
    model = start_model(config.model, config.images, labels=labels, listen=ignore)
    normalizer: nn.Module = build_normalizer(config.images, model)
    if config.train.frozen_backbone:
        backbone_of(model).remove_body()
        normalizer = MapsToFloat()
    training = training_of(model, normalizer, config=config, labels=labels, total_steps=total_steps, targets=targets)
    training.mixer = BatchMixer(**config.augment.mix.model_dump())
    return training


def training_of(
    model: nn.Module,
    normalizer: nn.Module,
    *,
    config: Config,
    labels: Sequence[str],
    total_steps: int,
    targets: Targets = None,
) -> Training:
    """The training of `model`, a fresh network on the CPU: on the device, with average, loss, optimizer, schedule."""
    precision = resolve_precision(config.train.precision, pick_device())
    frozen = config.train.frozen_backbone  # the model is a head, each of whose parameters gets a gradient
    unused = (not frozen and processes.count() > 1) and (
        config.train.freeze_backbone_epochs > 0 or has_unused_parameters(model, config.images)
    )
    wrapping = DistributedDataParallelKwargs(
        broadcast_buffers=False,  # those of rank 0 are validated and saved
        find_unused_parameters=unused,
        gradient_as_bucket_view=True,
    )
    accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision, kwargs_handlers=[wrapping])
    normalizer.to(accelerator.device)
    model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = WarmEma(model, decay=config.train.ema_decay)
    train = config.train
    if processes.count() > 1 and train.sync_batch_norm and accelerator.device.type == "cuda":
        # After the average was copied, which only evaluates. It is torch's, and keeps the activations of timm's norms.
        model = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    optimizer = build_optimizer(
        model,
        lr=train.lr,
        weight_decay=train.weight_decay,
        backbone_lr=train.backbone_lr,
        layer_decay=train.layer_decay,
    )
    schedule = build_schedule(optimizer, total=total_steps, warmup=config.train.warmup, schedule=config.train.schedule)
    if train.gradient_checkpointing and not frozen:
        backbone_of(model).checkpoint_gradients()
    prepared, wrapped = accelerator.prepare(model, optimizer)
    if train.compile:
        prepared.compile()  # in place, after the average was copied: names of weights stay as they are
    return Training(
        accelerator=accelerator,
        prepared=prepared,
        ema=ema,
        normalizer=normalizer,
        loss_function=build_loss(config.loss, labels=labels, targets=targets).to(accelerator.device),
        optimizer=wrapped,
        schedule=schedule,
        accumulate=train.accumulate,
        clip_grad=train.clip_grad,
        model=model,
    )


def on_maps(ensemble: Ensemble, source: ImageSource) -> Ensemble:
    """The same models, which from now on read the maps of `source` instead of images; the only view is identity."""
    for model in ensemble.models:
        backbone_of(model).remove_body()
    height, width, channels = source.shape
    form = ensemble.form._replace(size=(height, width), channels=channels)
    return replace(ensemble, normalizer=MapsToFloat(), views=parse_views(["identity"], size=form.size), form=form)
