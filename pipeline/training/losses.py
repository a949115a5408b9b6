"""Multi-label losses on logits: focusing weights, soft targets, unknown cells, closed-form gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Reduction = Literal["mean", "sum"]


def known_cells(targets: Tensor) -> Tensor:
    """The number of targets that are known (not NaN), an int64 scalar on their device."""
    return targets.isnan().logical_not().sum()


class MultiLabelLoss(nn.Module):
    """The common shape of all losses: (logits, targets) to one number.

    Computed in float32 also under autocast. Targets lie between 0 and 1; a soft target y weighs the positive
    term by y and the negative one by 1 - y. NaN targets are unknown: they add nothing and get no gradient.
    """

    def forward(self, logits: Tensor, targets: Tensor, reduction: Reduction = "mean") -> Tensor:
        """The loss of logits (B, K) and targets (B, K), a float32 scalar.

        Args:
            logits: of any floating type.
            targets: of any floating type.
            reduction: `mean` over the known cells (0 where there are none), or `sum` for a caller that
                divides by the known cells of several batches.

        Raises:
            ValueError: the shapes differ.
        """
        if logits.shape != targets.shape:
            raise ValueError(f"expected targets shaped as logits {tuple(logits.shape)}, got {tuple(targets.shape)}")
        with torch.autocast(logits.device.type, enabled=False):
            total = self.total(logits.float(), targets.float())
            return total if reduction == "sum" else total / known_cells(targets).clamp(min=1)

    def total(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over the known cells, both arguments float32."""
        raise NotImplementedError


class AsymmetricLoss(MultiLabelLoss):
    """Asymmetric loss (Ridnik et al. 2021): easy negatives count less than easy positives.

    With p = sigmoid(logit) and q = max(p - clip, 0), a positive costs (1 - p)^gamma_pos * -log p and a
    negative q^gamma_neg * -log(1 - q). Finite, with its gradient, for logits in [-1e4, 1e4].

    Args:
        gamma_neg: focus on hard negatives; a number, or one per label.
        gamma_pos: focus on hard positives, likewise.
        clip: probability margin below which a negative costs nothing, likewise; in [0, 1).
        differentiate_weight: let the gradient flow through the focusing weight too.
    """

    gamma_neg: float | Tensor
    gamma_pos: float | Tensor
    clip: float | Tensor

    def __init__(
        self,
        *,
        gamma_neg: float | Sequence[float] = 2.0,
        gamma_pos: float | Sequence[float] = 0.0,
        clip: float | Sequence[float] = 0.0,
        differentiate_weight: bool = True,
    ) -> None:
        super().__init__()
        _set_parameter(self, "gamma_neg", gamma_neg)
        _set_parameter(self, "gamma_pos", gamma_pos)
        _set_parameter(self, "clip", clip, below=1.0)
        self.differentiate_weight = differentiate_weight

    def total(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over the known cells, both arguments float32."""
        return _focused_sum(
            logits,
            targets.nan_to_num(nan=0.0),
            (1 - targets).nan_to_num_(nan=0.0),
            gamma_pos=self.gamma_pos,
            gamma_neg=self.gamma_neg,
            clip=self.clip,
            differentiate_weight=self.differentiate_weight,
        )


class FocalLoss(MultiLabelLoss):
    """Focal loss (Lin et al. 2017): (1 - p_t)^gamma * -log p_t, p_t being the probability of the truth.

    Args:
        gamma: focus on hard cells; a number, or one per label.
        alpha: weight of positives, negatives getting 1 - alpha; None for no weights.
    """

    gamma: float | Tensor

    def __init__(self, *, gamma: float | Sequence[float] = 2.0, alpha: float | None = None) -> None:
        super().__init__()
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"expected alpha between 0 and 1, got {alpha=}")
        _set_parameter(self, "gamma", gamma)
        self.alpha = alpha

    def total(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over the known cells, both arguments float32."""
        positive, negative = targets.nan_to_num(nan=0.0), (1 - targets).nan_to_num_(nan=0.0)
        if self.alpha is not None:
            positive, negative = self.alpha * positive, (1 - self.alpha) * negative
        return _focused_sum(logits, positive, negative, gamma_pos=self.gamma, gamma_neg=self.gamma)


class BinaryCrossEntropy(MultiLabelLoss):
    """Binary cross-entropy, as `torch.nn.BCEWithLogitsLoss`.

    Args:
        pos_weight: weight of positives; a number, or one per label; None for 1.
    """

    pos_weight: float | Tensor

    def __init__(self, *, pos_weight: float | Sequence[float] | None = None) -> None:
        super().__init__()
        _set_parameter(self, "pos_weight", 1.0 if pos_weight is None else pos_weight)

    def total(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum over the known cells, both arguments float32."""
        weight = torch.as_tensor(self.pos_weight, dtype=torch.float32, device=logits.device)
        known = targets.isnan().logical_not().float()
        return F.binary_cross_entropy_with_logits(
            logits, targets.nan_to_num(nan=0.0), weight=known, pos_weight=weight, reduction="sum"
        )


LOSSES: dict[str, Callable[..., MultiLabelLoss]] = {
    "asl": AsymmetricLoss,
    "bce": BinaryCrossEntropy,
    "focal": FocalLoss,
}


def _set_parameter(loss: nn.Module, name: str, value: float | Sequence[float], *, below: float = float("inf")) -> None:
    """Keep a number as it is and numbers per label as a buffer that follows the module's device."""
    numbers = torch.as_tensor(value, dtype=torch.float32)
    if numbers.ndim > 1 or not ((numbers >= 0) & (numbers < below)).all():
        raise ValueError(f"expected {name} >= 0 and < {below}, one number or one per label, got {value}")
    if numbers.ndim:
        loss.register_buffer(name, numbers, persistent=False)
    else:
        setattr(loss, name, float(numbers))


def _focused_sum(
    logits: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    gamma_pos: float | Tensor,
    gamma_neg: float | Tensor,
    clip: float | Tensor = 0.0,
    differentiate_weight: bool = True,
) -> Tensor:
    total: Tensor = _FocusedSum.apply(logits, positive, negative, gamma_pos, gamma_neg, clip, differentiate_weight)
    return total


class _FocusedSum(torch.autograd.Function):
    """Sum of positive * (1-p)^g+ * -log p + negative * q^g- * -log(1-q), gradient in closed form.

    Everything through s = softplus(x) = -log(1-p) and t = softplus(-x) = -log p, which are finite for every
    logit: (1-p)^g = exp(-g s), p^g = exp(-g t). Autograd would save a dozen (B, K) tensors; this saves one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        positive: Tensor,
        negative: Tensor,
        gamma_pos: float | Tensor,
        gamma_neg: float | Tensor,
        clip: float | Tensor,
        differentiate_weight: bool,
    ) -> Tensor:
        tail = logits.abs().neg_().exp_().log1p_()
        s = logits.clamp(min=0) + tail
        t = (-logits).clamp_(min=0) + tail
        p, rest = torch.exp(-t), torch.exp(-s)
        up = differentiate_weight
        weight = torch.exp(-gamma_pos * s) * positive
        loss = weight * t
        gradient = weight * -(rest + (gamma_pos * p * t if up else 0.0))
        if isinstance(clip, Tensor) or clip > 0:
            q = (p - clip).clamp_(min=0)
            surprise = -torch.log1p(-q)
            weight = torch.pow(q, gamma_neg) * negative
            # surprise / q tends to 1 at 0, where gamma * q^(gamma - 1) alone would be infinite for gamma < 1
            ratio = torch.where(q > 0, surprise / q.clamp(min=1e-38), 1.0)
            slope = (1 / (1 - q) + (gamma_neg * ratio if up else 0.0)) * p * rest
            loss += weight * surprise
            gradient += torch.where(q > 0, weight * slope, 0.0)
        else:
            weight = torch.exp(-gamma_neg * t) * negative
            loss += weight * s
            gradient += weight * (p + (gamma_neg * rest * s if up else 0.0))
        ctx.save_for_backward(gradient)
        return loss.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None, None, None, None, None
