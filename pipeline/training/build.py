"""From the config to the objects of one training and of its predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from numpy.typing import NDArray
from timm.layers.norm_act import convert_sync_batchnorm
from torch import nn

from pipeline import processes
from pipeline.config import Config, LossConfig
from pipeline.device import free_shared_memory, loading_workers, pick_device, resolve_precision
from pipeline.errors import ConfigError, RunError, listing, nearest
from pipeline.events import Listener, Note, ignore
from pipeline.images.geometry import image_form
from pipeline.model.build import backbone_of, build_normalizer, load_model, start_model
from pipeline.prediction.ensemble import Average
from pipeline.prediction.predict import Ensemble, Runtime
from pipeline.prediction.tta import parse_views
from pipeline.seeds import stable_seed
from pipeline.training.distributed import has_unused_parameters
from pipeline.training.loop import Training
from pipeline.training.losses import LOSSES, MultiLabelLoss
from pipeline.training.mixing import BatchMixer
from pipeline.training.optim import WarmEma, build_optimizer, build_schedule

Targets = NDArray[np.float32] | None
_QUEUES_BYTES = 2**20  # for the locks of the queues to and from loading processes


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
    normalizer = build_normalizer(config.images, model)
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
    unused = processes.count() > 1 and (
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
    if train.gradient_checkpointing:
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


def build_runtime(config: Config, *, beside: int = 1, listen: Listener = ignore) -> Runtime:
    """Device, precision and loading processes of this process, one of `beside` trainings on this machine.

    `listen` gets a note where /dev/shm, as in a plain Docker container, is too small for the batches of the processes.
    """
    device = pick_device()
    workers = loading_workers(config.train.workers, device, beside=beside)
    batch_size = config.predict.batch_size or config.train.batch_size
    sizes = {view.size for view in parse_views(config.predict.tta, size=config.images.height_width)}
    pixels = max(
        config.train.batch_size * math.prod(config.images.height_width), batch_size * sum(map(math.prod, sizes))
    )
    needed = beside * (2 * workers + 1) * pixels * config.images.channels  # two batches wait in each, one is read
    free = free_shared_memory() if workers else math.inf
    if needed > free:
        alone = free < _QUEUES_BYTES
        listen(
            Note(
                f"the shared memory /dev/shm has no room for {needed / 2**20:.0f} MiB, the batches of "
                f"train.workers={workers}: "
                + ("this process loads the images itself" if alone else "batches are sent through pipes")
                + f", which is slower; in Docker start the container with --shm-size={math.ceil(needed / 2**30)}g"
            )
        )
        workers = 0 if alone else workers
    return Runtime(device, resolve_precision(config.train.precision, device), batch_size=batch_size, workers=workers)


def build_ensemble(
    config: Config,
    models: Sequence[nn.Module],
    normalizer: nn.Module,
    *,
    tta: Sequence[str] | None = None,
    average: Average | None = None,
) -> Ensemble:
    """`models` with the views and the average of `predict`, or with others. Raises ConfigError for an unknown view."""
    views = parse_views(tta or config.predict.tta, size=config.images.height_width)
    return Ensemble(models, normalizer, views, image_form(config.images), average or config.predict.average)


def load_ensemble(
    config: Config,
    weights: Sequence[Path],
    *,
    labels: Sequence[str],
    device: torch.device,
    tta: Sequence[str] | None = None,
) -> Ensemble:
    """The models of a run in these files, with its views or with others.

    Raises:
        ConfigError: an unknown view.
        RunError: weights are missing or broken, or for other labels.
    """
    trained = [load_model(path, device=device) for path in weights]
    for path, model in zip(weights, trained, strict=True):
        if list(model.labels) != list(labels):
            raise RunError(
                f"{path} predicts other labels than the training data and thresholds have now, or in another order",
                expected=listing(labels, 12),
                got=listing(model.labels, 12),
                remedy="restore the sample submission or competition.labels the run began with; if the run folder was "
                "changed by hand, start it with --fresh",
            )
    return build_ensemble(config, [model.model for model in trained], trained[0].normalizer, tta=tta)
