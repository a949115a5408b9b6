"""From the config to the objects that predict. Imports no library that only training needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline.config import Config
from pipeline.device import free_shared_memory, loading_workers, pick_device, resolve_precision
from pipeline.errors import ConfigError, RunError, listing
from pipeline.events import Listener, Note, ignore
from pipeline.images.geometry import image_form
from pipeline.model.build import load_model
from pipeline.model.exported import load_exported
from pipeline.prediction.predict import Ensemble, Runtime
from pipeline.prediction.tta import parse_views

_QUEUES_BYTES = 2**20  # for the locks of the queues to and from loading processes


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


def load_ensemble(
    config: Config,
    weights: Sequence[Path],
    *,
    labels: Sequence[str],
    device: torch.device,
    tta: Sequence[str] | None = None,
) -> Ensemble:
    """The models of a run in these files, with its views or with others.

    Args:
        config: the run's configuration.
        weights: files of weights, or exported networks.
        labels: of the run.
        device: of weights; exported networks are on the CPU.
        tta: other views than `predict.tta`.

    Raises:
        ConfigError: an unknown view, or one of a size that an exported network cannot read.
        RunError: weights are missing or broken, or for other labels.
    """
    views = parse_views(tta or config.predict.tta, size=config.images.height_width)
    exported = weights[0].suffix != ".safetensors"
    other = [view.name for view in views if exported and view.size != config.images.height_width]
    if other:
        raise ConfigError(
            f"predict.engine={config.predict.engine} reads images of the training size only",
            got=f"the view {other[0]}",
            remedy="set predict.engine=torch, or leave this view out of predict.tta and --tta",
        )
    trained = [load_exported(path) if exported else load_model(path, device=device) for path in weights]
    for path, model in zip(weights, trained, strict=True):
        if list(model.labels) != list(labels):
            raise RunError(
                f"{path} predicts other labels than the training data and thresholds have now, or in another order",
                expected=listing(labels, 12),
                got=listing(model.labels, 12),
                remedy="restore the sample submission or competition.labels the run began with; if the run folder was "
                "changed by hand, start it with --fresh",
            )
    models, form = [model.model for model in trained], image_form(config.images)
    return Ensemble(models, trained[0].normalizer, views, form, config.predict.average)
