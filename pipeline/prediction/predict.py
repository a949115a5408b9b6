"""The prediction loop of validation, out-of-fold and test predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.device import Precision, autocast
from pipeline.errors import PipelineError
from pipeline.images.dataset import EvalBatch
from pipeline.images.geometry import ImageForm
from pipeline.prediction.ensemble import Average, combine_logits
from pipeline.prediction.tta import View


class Runtime(NamedTuple):
    """Device and precision of a process, batches of `batch_size` to predict, and `workers` processes to load them."""

    device: torch.device
    precision: Precision
    batch_size: int
    workers: int


@dataclass(frozen=True)
class Ensemble:
    """Models that read the same images, their views, and how their predictions are averaged.

    Attributes:
        models: in evaluation mode on their device; each returns logits (B, K).
        normalizer: uint8 to float on the device.
        views: every model predicts each of them.
        form: size, fit and channels of an image at training size; a view may have another size.
        average: the quantity that is averaged over models and views.
    """

    models: Sequence[nn.Module]
    normalizer: nn.Module
    views: Sequence[View]
    form: ImageForm
    average: Average

    @property
    def forms(self) -> tuple[ImageForm, ...]:
        """The image form of each view."""
        return tuple(self.form._replace(size=view.size) for view in self.views)


def needed_forms(ensembles: Sequence[Ensemble]) -> tuple[ImageForm, ...]:
    """The different forms that the ensembles read, in the order of ensembles and views."""
    return tuple(dict.fromkeys(form for ensemble in ensembles for form in ensemble.forms))


@torch.inference_mode()
def predict(
    ensembles: Sequence[Ensemble],
    batches: Iterable[EvalBatch],
    *,
    device: torch.device,
    precision: Precision,
    on_batch: Callable[[int], None] | None = None,
) -> list[NDArray[np.float64]]:
    """Logits (N, K) of each ensemble, rows in the order of the batches; every image is read once for all ensembles.

    Args:
        ensembles: one per run.
        batches: images in the forms of `needed_forms(ensembles)`, in that order.
        device: of the models and normalizers.
        precision: of the models' forward passes; averages are computed in float64.
        on_batch: called after each batch with its number of images.

    Raises:
        PipelineError: a model's logits are not finite.
    """
    forms = needed_forms(ensembles)
    rows: list[list[NDArray[np.float64]]] = [[] for _ in ensembles]
    for batch in batches:
        images = dict(zip(forms, (part.to(device, non_blocking=True) for part in batch.images), strict=True))
        for ensemble, collected in zip(ensembles, rows, strict=True):
            collected.append(_predict_batch(ensemble, images, device=device, precision=precision))
        if on_batch is not None:
            on_batch(len(batch.indices))
    return [np.concatenate(collected) for collected in rows]


def _predict_batch(
    ensemble: Ensemble, images: dict[ImageForm, Tensor], *, device: torch.device, precision: Precision
) -> NDArray[np.float64]:
    logits = []
    for view, form in zip(ensemble.views, ensemble.forms, strict=True):
        normalized = ensemble.normalizer(view.apply(images[form]))
        with autocast(device, precision):
            logits += [model(normalized).float().cpu().numpy() for model in ensemble.models]
    if not all(np.isfinite(each).all() for each in logits):
        raise PipelineError(
            "a model gives predictions that are not finite numbers",
            remedy="train again with --fresh and a lower train.lr, or with train.precision=fp32",
        )
    return combine_logits(np.stack(logits), average=ensemble.average)
