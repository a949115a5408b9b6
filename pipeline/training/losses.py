"""Multi-label losses on logits: focusing weights, soft targets, unknown cells, closed-form gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Reduction = Literal["mean", "sum"]
PerLabel = float | Tensor  # one number, or one per label, shape (K,)
Numbers = float | Sequence[float] | Tensor  # the same, as arguments

_BLOCK_CELLS = 65_536  # a block's temporaries, 256 KiB each, stay in the cache of a CPU core
_TINY = torch.finfo(torch.float32).tiny


class _Focus(NamedTuple):
    """The family all losses here belong to: a cell of target y and probability p = sigmoid(logit) costs

    pos_weight * y * (1 - p)^gamma_pos * -log p + neg_weight * (1 - y) * q^gamma_neg * -log(1 - q)

    with q = max(p - clip, 0).
    """

    gamma_pos: PerLabel = 0.0
    gamma_neg: PerLabel = 0.0
    clip: PerLabel = 0.0
    pos_weight: PerLabel = 1.0
    neg_weight: float = 1.0
    differentiate_weight: bool = True  # whether the powers have a gradient of their own


def known_cells(targets: Tensor) -> Tensor:
    """The number of targets that are known (not NaN), an int64 scalar on their device."""
    eager = targets.device.type == "cpu" and not torch.compiler.is_compiling()
    if eager and math.isfinite(targets.sum()):  # ten times faster than isnan
        return torch.tensor(targets.numel())
    return targets.isnan().logical_not().sum()


class MultiLabelLoss(nn.Module):
    """The common shape of all losses: (logits, targets) to one number.

    Computed in float32, also under autocast; finite, with its gradient, for logits in [-1e4, 1e4]. Targets
    lie between 0 and 1, and a soft one weighs both terms. NaN targets are unknown: they add nothing to the
    loss and get no gradient. Nothing is kept between calls.
    """

    def forward(self, logits: Tensor, targets: Tensor, reduction: Reduction = "mean") -> Tensor:
        """The loss of logits (B, K) and targets (B, K) of any floating types, a float32 scalar.

        Args:
            reduction: `mean` over the known cells (0 where there are none), or `sum` for a caller that
                divides by the known cells of several batches.

        Raises:
            ValueError: the shapes differ or are not (B, K), or the reduction is unknown.
        """
        if logits.shape != targets.shape or logits.ndim != 2:
            raise ValueError(
                f"expected logits and targets of one shape (B, K), got {tuple(logits.shape)} and {tuple(targets.shape)}"
            )
        if reduction not in ("mean", "sum"):
            raise ValueError(f"expected reduction mean or sum, got {reduction!r}")
        with torch.autocast(logits.device.type, enabled=False):
            total = self._sum(logits.float(), targets.float())
            return total if reduction == "sum" else total / known_cells(targets).clamp(min=1)

    def _sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        total: Tensor = _FocusedSum.apply(logits, targets, self._focus())
        return total

    def _focus(self) -> _Focus:
        raise NotImplementedError


class AsymmetricLoss(MultiLabelLoss):
    """Asymmetric loss (Ridnik et al. 2021): easy negatives count less than easy positives.

    With p = sigmoid(logit) and q = max(p - clip, 0), a positive costs (1 - p)^gamma_pos * -log p and a
    negative q^gamma_neg * -log(1 - q).

    Args:
        gamma_neg: focus on hard negatives; a number, or one per label.
        gamma_pos: focus on hard positives, likewise.
        clip: probability below which a negative costs nothing, likewise; in [0, 1).
        differentiate_weight: let the gradient flow through the focusing weights too.
    """

    gamma_neg: PerLabel
    gamma_pos: PerLabel
    clip: PerLabel

    def __init__(
        self,
        *,
        gamma_neg: Numbers = 2.0,
        gamma_pos: Numbers = 0.0,
        clip: Numbers = 0.0,
        differentiate_weight: bool = True,
    ) -> None:
        super().__init__()
        _set_numbers(self, "gamma_neg", gamma_neg)
        _set_numbers(self, "gamma_pos", gamma_pos)
        _set_numbers(self, "clip", clip, below=1.0)
        self.differentiate_weight = differentiate_weight

    def _focus(self) -> _Focus:
        return _Focus(self.gamma_pos, self.gamma_neg, self.clip, differentiate_weight=self.differentiate_weight)


class FocalLoss(MultiLabelLoss):
    """Focal loss (Lin et al. 2017): (1 - p_t)^gamma * -log p_t, p_t being the probability of the truth.

    Args:
        gamma: focus on hard cells; a number, or one per label.
        alpha: weight of positives, negatives getting 1 - alpha; None for no weights.
        differentiate_weight: let the gradient flow through the focusing weights too.
    """

    gamma: PerLabel

    def __init__(self, *, gamma: Numbers = 2.0, alpha: float | None = None, differentiate_weight: bool = True) -> None:
        super().__init__()
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"expected alpha between 0 and 1, got {alpha=}")
        _set_numbers(self, "gamma", gamma)
        self.alpha = alpha
        self.differentiate_weight = differentiate_weight

    def _focus(self) -> _Focus:
        focus = _Focus(gamma_pos=self.gamma, gamma_neg=self.gamma, differentiate_weight=self.differentiate_weight)
        if self.alpha is None:
            return focus
        return focus._replace(pos_weight=self.alpha, neg_weight=1 - self.alpha)


class BinaryCrossEntropy(MultiLabelLoss):
    """Binary cross-entropy, as `torch.nn.BCEWithLogitsLoss` with targets that may be unknown.

    Args:
        pos_weight: weight of positives; a number, or one per label; None for 1.
    """

    pos_weight: PerLabel

    def __init__(self, *, pos_weight: Numbers | None = None) -> None:
        super().__init__()
        _set_numbers(self, "pos_weight", 1.0 if pos_weight is None else pos_weight)

    def _focus(self) -> _Focus:
        return _Focus(pos_weight=self.pos_weight)


class DistributionBalancedLoss(MultiLabelLoss):
    """Distribution-balanced loss (Wu et al. 2020): cells weigh by how rare their label is beside the others of the row.

    Label i has n_i positives and m_i negatives in the training rows. A cell of logit z and target y costs

        r * (y * (1 - p)^gamma * -log p + (1 - y) / lambda_ * q^gamma * -log(1 - q))
        p = sigmoid(z - nu_i), q = sigmoid(lambda_ * (z - nu_i)), nu_i = kappa * log(m_i / n_i)
        r = alpha + sigmoid(beta * ((1 / n_i) / (sum of y_j / n_j over the row's known labels j) - mu))

    A row without positives gets the limit r = alpha + 1. Counts below 1 count as 1. The authors' code divides kappa by
    lambda_ and doubles the loss if gamma is not 0; this follows the paper.

    Args:
        trained: the targets (N, K) of the training rows, from which n_i and m_i are counted.
        gamma: focus on hard cells; 0 for none.
        differentiate_weight: let the gradient flow through the focusing weights too.
    """

    positives: Tensor
    nu: Tensor

    def __init__(
        self,
        *,
        trained: Tensor,
        alpha: float = 0.1,
        beta: float = 10.0,
        mu: float = 0.3,
        lambda_: float = 5.0,
        kappa: float = 0.05,
        gamma: float = 2.0,
        differentiate_weight: bool = True,
    ) -> None:
        super().__init__()
        positives, negatives = (cells.float().nansum(dim=0).clamp(min=1) for cells in (trained, 1 - trained))
        self.register_buffer("positives", positives, persistent=False)
        self.register_buffer("nu", kappa * (negatives / positives).log(), persistent=False)
        self.alpha, self.beta, self.mu, self.lambda_ = alpha, beta, mu, lambda_
        self.focus = _Focus(gamma_pos=gamma, neg_weight=0.0, differentiate_weight=differentiate_weight)

    def _sum(self, logits: Tensor, targets: Tensor) -> Tensor:
        shares = targets.nan_to_num(nan=0.0) / self.positives
        ratio = 1 / self.positives / shares.sum(dim=1, keepdim=True).clamp(min=_TINY)
        weights = self.alpha + torch.sigmoid(self.beta * (ratio - self.mu))
        shifted = logits - self.nu
        cells = torch.cat([shifted, -self.lambda_ * shifted])  # a negative costs what a positive does at -logit
        known = torch.cat([weights * targets, weights * (1 - targets) / self.lambda_])
        total: Tensor = _FocusedSum.apply(cells, known, self.focus)
        return total


LOSSES: dict[str, Callable[..., MultiLabelLoss]] = {
    "asl": AsymmetricLoss,
    "bce": BinaryCrossEntropy,
    "db": DistributionBalancedLoss,
    "focal": FocalLoss,
}


def _set_numbers(loss: nn.Module, name: str, value: Numbers, *, below: float = math.inf) -> None:
    """Keep a number as it is, and numbers per label as a buffer that follows the module to its device."""
    numbers = torch.as_tensor(value, dtype=torch.float32)
    if numbers.ndim > 1 or not ((numbers >= 0) & (numbers < below)).all():
        raise ValueError(f"expected {name} in [0, {below}), one number or one per label, got {value}")
    if numbers.ndim:
        loss.register_buffer(name, numbers, persistent=False)
    else:
        setattr(loss, name, float(numbers))


class _FocusedSum(torch.autograd.Function):
    """A loss of the family, summed over the known cells, with its gradient in closed form.

    Autograd would keep a dozen (B, K) tensors for the backward pass; this keeps the gradient alone.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, focus: _Focus) -> Tensor:
        gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
        rows = max(len(logits), 1)
        if logits.device.type == "cpu" and not torch.compiler.is_compiling():
            rows = max(1, _BLOCK_CELLS // max(logits.shape[1], 1))
        blocks = zip(*(torch.split(whole, rows) for whole in (logits, targets, gradient)), strict=True)
        total = torch.stack([_block(x, y, slope, focus) for x, y, slope in blocks]).sum()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None


def _block(x: Tensor, y: Tensor, gradient: Tensor, focus: _Focus) -> Tensor:
    """The loss of a block of logits `x` and targets `y`, summed; its derivative goes to `gradient`."""
    positive = y.nan_to_num(nan=0.0)
    negative = (1 - y).nan_to_num_(nan=0.0)
    positive, negative = positive.mul_(focus.pos_weight), negative.mul_(focus.neg_weight)
    p, rest = torch.sigmoid(x), torch.sigmoid(-x)  # 1 - p would lose the digits of a small rest
    tail = x.abs().neg_().exp_().log1p_()
    loss = _positives(positive, p, rest, tail - x.clamp(max=0), gradient, focus)
    return loss + _negatives(negative, p, rest, tail.add_(x.clamp(min=0)), gradient, focus)


def _positives(y: Tensor, p: Tensor, rest: Tensor, surprise: Tensor, gradient: Tensor, focus: _Focus) -> Tensor:
    """The sum of y * (1 - p)^g * surprise, where surprise = -log p; writes the derivative."""
    g = focus.gamma_pos
    weight, slope = y, rest
    if not _is_zero(g):
        weight = y * rest.pow(g)
        if focus.differentiate_weight:
            slope = torch.addcmul(rest, p * g, surprise)
    torch.mul(weight, slope, out=gradient)
    gradient.neg_()
    return (weight * surprise).sum()


def _negatives(y: Tensor, p: Tensor, rest: Tensor, surprise: Tensor, gradient: Tensor, focus: _Focus) -> Tensor:
    """The sum of y * q^g * -log(1 - q), where surprise = -log(1 - p); adds the derivative."""
    if not _is_zero(focus.clip):
        return _clipped_negatives(y, p, rest, surprise, gradient, focus)
    g = focus.gamma_neg
    weight, slope = y, p
    if not _is_zero(g):
        weight = y * p.pow(g)
        if focus.differentiate_weight:
            slope = torch.addcmul(p, rest * g, surprise)
    gradient.addcmul_(weight, slope)
    return (weight * surprise).sum()


def _clipped_negatives(y: Tensor, p: Tensor, rest: Tensor, surprise: Tensor, gradient: Tensor, focus: _Focus) -> Tensor:
    """As `_negatives`, with the margin.

    All from 1 - q = min(rest + clip, 1), so that q and -log(1 - q) vanish together: q^(g-1) * -log(1 - q),
    part of the derivative, then tends to 0 for every g > 0 instead of infinity for g < 1.
    """
    g, clip = focus.gamma_neg, focus.clip
    left = (rest + clip).clamp_(max=1)
    q, clipped, share = 1 - left, left.log().neg_(), rest / left
    if isinstance(clip, Tensor):  # labels without a margin: here 1 - q may round to 0
        q, clipped, share = (
            torch.where(clip > 0, here, otherwise) for here, otherwise in ((q, p), (clipped, surprise), (share, 1.0))
        )
    weight = y * q.clamp(min=_TINY).pow(g - 1)
    slope = q * share
    if focus.differentiate_weight and not _is_zero(g):
        slope.addcmul_(rest * g, clipped)
    gradient.addcmul_(weight, slope.mul_(p))
    return weight.mul_(q).mul_(clipped).sum()


def _is_zero(value: PerLabel) -> bool:
    return not isinstance(value, Tensor) and value == 0
