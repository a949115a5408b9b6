"""Mixup and cutmix for multi-label training: mix the images of a batch, and their targets by the same share."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.seeds import stable_seed


class Mix(NamedTuple):
    """The mix of B images of one batch; all have the same share and box.

    Attributes:
        partners: (B,) the row each image is mixed with; None for a batch that stays as it is.
        share: of the image itself, in [0, 1]; the partner has the rest.
        box: (top, left, bottom, right) of what a partner pastes over; None where all pixels are blended.
    """

    partners: Tensor | None = None
    share: float = 1.0
    box: tuple[int, int, int, int] | None = None

    def images(self, images: Tensor) -> Tensor:
        """Mixed images (B, C, H, W), on the device of `images`, which are normalised already."""
        if self.partners is None:
            return images
        partners = images[self.partners.to(images.device)]
        if self.box is None:
            return torch.lerp(partners, images, self.share)
        top, left, bottom, right = self.box
        pasted = images.clone()
        pasted[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
        return pasted

    def targets(self, targets: Tensor) -> Tensor:
        """Soft targets (B, K): a label counts by the share of the image that shows it; unknown stays unknown."""
        if self.partners is None:
            return targets
        return torch.lerp(targets[self.partners], targets, self.share)


class BatchMixer:
    """Draws a mix for each batch: mixup (Zhang et al. 2018), cutmix (Yun et al. 2019), or none.

    Args:
        mixup: both parameters of the Beta distribution the share is drawn from; 0 switches mixup off.
        cutmix: likewise for cutmix. With both on, each batch takes one of them by a fair coin.
        probability: that a batch is mixed at all.
    """

    def __init__(self, *, mixup: float, cutmix: float, probability: float) -> None:
        self._kinds = [(alpha, boxed) for alpha, boxed in ((mixup, False), (cutmix, True)) if alpha > 0]
        self._probability = probability

    def draw(self, images: Tensor, *, seed: int, position: int) -> Mix:
        """The mix of a batch (B, C, H, W), a function of the step's `seed` and the batch's `position` in it."""
        generator = np.random.default_rng(stable_seed("mix", seed, position))
        if not self._kinds or generator.random() >= self._probability:
            return Mix()
        alpha, boxed = self._kinds[generator.integers(len(self._kinds))]
        share = float(generator.beta(alpha, alpha))
        partners = torch.from_numpy(generator.permutation(len(images)))
        if not boxed:
            return Mix(partners, share)
        height, width = images.shape[2:]
        box = _box(height, width, share, generator)
        covered = (box[2] - box[0]) * (box[3] - box[1]) / (height * width)
        return Mix(partners, 1.0 - covered, box)


def _box(height: int, width: int, share: float, generator: np.random.Generator) -> tuple[int, int, int, int]:
    """A box of about 1 - `share` of the area, in the image's aspect, around a point drawn evenly; cut at the border."""
    side = math.sqrt(1.0 - share)
    rows, columns = round(height * side), round(width * side)
    top = int(generator.integers(height)) - rows // 2
    left = int(generator.integers(width)) - columns // 2
    return max(top, 0), max(left, 0), min(top + rows, height), min(left + columns, width)
