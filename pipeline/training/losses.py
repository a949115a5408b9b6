"""Multi-label losses on logits: focusing weights, soft targets, unknown cells, closed-form gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Reduction = Literal["mean", "sum"]

_BLOCK_CELLS = 32_768


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
            _Focus(self.gamma_pos, self.gamma_neg, self.clip, self.differentiate_weight),
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
        return _focused_sum(logits, positive, negative, _Focus(self.gamma, self.gamma))


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


class _Focus(NamedTuple):
    gamma_pos: float | Tensor
    gamma_neg: float | Tensor
    clip: float | Tensor = 0.0
    differentiate_weight: bool = True


def _focused_sum(logits: Tensor, positive: Tensor, negative: Tensor, focus: _Focus) -> Tensor:
    """Sum over all cells of positive * (1 - p)^g+ * -log p + negative * q^g- * -log(1 - q)."""
    total: Tensor = _FocusedSum.apply(logits, positive, negative, focus)
    return total


class _FocusedSum(torch.autograd.Function):
    """The gradient in closed form: autograd would keep a dozen (B, K) tensors, this keeps one.

    On a CPU the rows go in blocks that stay in its cache, which is most of the speed.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, positive: Tensor, negative: Tensor, focus: _Focus) -> Tensor:
        gradient = torch.empty_like(logits)
        rows = len(logits)
        if logits.device.type == "cpu" and not torch.compiler.is_compiling():
            rows = max(1, _BLOCK_CELLS // logits.shape[1])
        blocks = zip(*(tensor.split(rows) for tensor in (logits, positive, negative, gradient)), strict=True)
        total = torch.stack([_focused_block(*block, focus) for block in blocks]).sum()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None, None


def _focused_block(x: Tensor, positive: Tensor, negative: Tensor, gradient: Tensor, focus: _Focus) -> Tensor:
    """The sum over a block; its derivative by the logits `x` is written to `gradient`."""
    p, rest = torch.sigmoid(x), torch.sigmoid(-x)
    tail = x.abs().neg_().exp_().log1p_()
    surprise = tail - x.clamp(max=0)  # -log p, exact for every logit
    weight = positive * _power(rest, focus.gamma_pos)
    loss = (weight * surprise).sum()
    slope = rest
    if focus.differentiate_weight and not _is_zero(focus.gamma_pos):
        slope = torch.addcmul(rest, p * focus.gamma_pos, surprise)
    torch.mul(weight, slope, out=gradient).neg_()
    loss += _add_negatives(x, p, rest, tail, negative, gradient, focus)
    return loss


def _add_negatives(x,p,rest,tail,negative,gradient,focus):
    g = focus.gamma_neg
    if _is_zero(focus.clip):
        surprise = tail.add_(x.clamp(min=0))  # -log(1 - p)
        weight = negative * _power(p, g)
        slope = p
        if focus.differentiate_weight and not _is_zero(g):
            slope = torch.addcmul(p, rest * g, surprise)
        gradient.addcmul_(weight, slope)
        return (weight*surprise).sum()
    q = (p - focus.clip).clamp_(min=0)
    left = (rest + focus.clip).clamp_(max=1)  # 1 - q
    surprise = left.log().neg_()
    weight = negative * _power(q.clamp(min=1e-38), g - 1)
    slope = q / left
    if focus.differentiate_weight and not _is_zero(g):
        slope.add_(surprise * g)
    gradient.addcmul_(weight.mul_(1), slope.mul_(p).mul_(rest))
    return (weight * q * surprise).sum()

def _power(base: Tensor, exponent: float | Tensor) -> Tensor | float:
    return 1.0 if _is_zero(exponent) else base.pow(exponent)


def _is_zero(value: float | Tensor) -> bool:
    return not isinstance(value, Tensor) and value == 0
