"""The one prediction loop: validation, out-of-fold and test predictions all come from here."""

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
from pipeline.images.dataset import EvalBatch, ImageForm
from pipeline.prediction.ensemble import Average, combine_logits
from pipeline.prediction.tta import View


class Runtime(NamedTuple):
    """Where and how a process computes: batches of `batch_size` to predict, and `workers` processes to load them."""

    device: torch.device
    precision: Precision
    batch_size: int
    workers: int


@dataclass(frozen=True)
class Ensemble:
    """Models that read the same images, the views they look at, and how their answers are averaged.

    Attributes:
        models: fold models, in evaluation mode on their device; each gives logits (B, K).
        normalizer: uint8 to float on the device.
        views: what each model looks at.
        form: size, fit and channels of an image at training size; a view may ask for another size.
        average: what is averaged over models and views.
    """

    models: Sequence[nn.Module]
    normalizer: nn.Module
    views: Sequence[View]
    form: ImageForm
    average: Average

    @property
    def forms(self) -> tuple[ImageForm, ...]:
        """The image forms that the views read, one per view."""
        return tuple(self.form._replace(size=view.size) for view in self.views)


def needed_forms(ensembles: Sequence[Ensemble]) -> tuple[ImageForm, ...]:
    """Each form that any of the ensembles reads, once, the first ensemble's first view first."""
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
    """Logits (N, K) of each ensemble, rows in the order of the batches; every image is read once for all.

    Args:
        ensembles: one per run.
        batches: images in the forms of `needed_forms(ensembles)`, in that order.
        device: where models and normalizers lie.
        precision: of the models' mathematics; averages are taken in float64.
        on_batch: told the number of images after each batch.

    Raises:
        PipelineError: a model's answer is not finite.
    """
    forms = needed_forms(ensembles)
    rows: list[list[NDArray[np.float64]]] = [[] for _ in ensembles]
    for batch in batches:
        at_hand = dict(zip(forms, (part.to(device, non_blocking=True) for part in batch.images), strict=True))
        for ensemble, collected in zip(ensembles, rows, strict=True):
            collected.append(_answer(ensemble, at_hand, device=device, precision=precision))
        if on_batch is not None:
            on_batch(len(batch.indices))
    return [np.concatenate(collected) for collected in rows]


def _answer(
    ensemble: Ensemble, images: dict[ImageForm, Tensor], *, device: torch.device, precision: Precision
) -> NDArray[np.float64]:
    answers = []
    for view, form in zip(ensemble.views, ensemble.forms, strict=True):
        seen = ensemble.normalizer(view.apply(images[form]))
        with autocast(device, precision):
            answers += [model(seen).float().cpu().numpy() for model in ensemble.models]
    if not all(np.isfinite(answer).all() for answer in answers):
        raise PipelineError(
            "a model gives predictions that are not finite numbers",
            remedy="train again with --fresh and a lower train.lr, or with train.precision=fp32",
        )
    return combine_logits(np.stack(answers), average=ensemble.average)
