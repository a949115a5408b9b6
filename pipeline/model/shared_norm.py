"""Batch norms of several processes that train together: each normalises by the images of all of them.

torch.nn.SyncBatchNorm does so on GPUs only, and would wait for ever for a process whose memory is full; these
exchange their sums as all else is exchanged, on any device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline import processes


def share_batch_norms(model: nn.Module) -> None:
    """Let the batch norms of `model`, in place, normalise over the micro-batch of all processes.

    Every process has the same model and calls it, forward and backward, as often as the others and with an image
    at least. The result, its gradient and the running statistics are those of one process with all images.
    Nothing is exchanged in evaluation mode, so by frozen ones neither. Names of weights stay as they are.
    """
    for module in model.modules():
        shared = _SHARED.get(type(module))
        if shared is not None:
            module.__class__ = shared


@contextlib.contextmanager
def each_for_itself(model: nn.Module) -> Iterator[None]:
    """The batch norms of `model` exchange nothing in the block: each process normalises by its own images."""
    plain = {shared: own for own, shared in _SHARED.items()}
    modules = [module for module in model.modules() if type(module) in plain]
    try:
        for module in modules:
            module.__class__ = plain[type(module)]
        yield
    finally:
        for module in modules:
            module.__class__ = _SHARED[type(module)]


class _SharedBatchNorm1d(nn.BatchNorm1d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (its name in torch)
        return _normalised(self, input) if self.training else super().forward(input)


class _SharedBatchNorm2d(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return _normalised(self, input) if self.training else super().forward(input)


class _SharedBatchNormAct2d(BatchNormAct2d):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)  # type: ignore[no-any-return, no-untyped-call]
        output: Tensor = self.act(self.drop(_normalised(self, x)))
        return output


_SHARED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _SharedBatchNorm1d,
    nn.BatchNorm2d: _SharedBatchNorm2d,
    BatchNormAct2d: _SharedBatchNormAct2d,
}


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _normalised(norm: _BatchNorm, x: Tensor) -> Tensor:
    """What `norm` makes of `x` in training mode, its running statistics moved on."""
    mean, variance, count = _statistics(x)
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        share = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
        norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var.dtype), share)
    output: Tensor = _Normalise.apply(x, norm.weight, norm.bias, mean, variance, count, norm.eps)
    return output


@torch.no_grad()
def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), biased variance (C,) and number of the values in a channel of `x` (B, C, ..) in all processes.

    Each process tells its own mean and variance: sums of squares would lose what a small variance has beside a
    large mean.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, dim=_all_but_channels(x), correction=0)
    told = wide.new_zeros(processes.count(), 2 * len(mean) + 1)
    told[processes.rank()] = torch.cat([mean, variance, mean.new_full((1,), x.numel() // len(mean))])
    processes.total_in_place(told)
    means, variances, counts = told[:, : len(mean)], told[:, len(mean) : -1], told[:, -1:]
    count = counts.sum()
    mean = (means * counts).sum(dim=0) / count
    return mean, ((variances + (means - mean).square()) * counts).sum(dim=0) / count, count


class _Normalise(torch.autograd.Function):
    """Normalise by statistics that are functions of the input, here and in the other processes.

    With d the gradient of the output, n the normalised input and w the weight, the gradient of the input is
    w / std · (d - mean(d) - n · mean(d · n)), where means are over all processes (Ioffe & Szegedy 2015).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight, mean, variance, count = ctx.saved_tensors
        scale = torch.ones_like(mean) if weight is None else weight
        inverse = (variance + ctx.eps).rsqrt()
        # As if the statistics were constants. A GPU asks for mean and inverse, too, where memory is channels-last.
        of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, scale, mean, variance, mean, inverse, False, ctx.eps, [True, True, True]
        )
        if ctx.needs_input_grad[0]:
            sums = torch.stack([of_bias, of_weight])
            processes.total_in_place(sums)
            factor = -scale * inverse.square() * sums[1] / count
            constant = -scale * inverse * sums[0] / count - factor * mean
            shape = [-1] + [1] * (x.ndim - 2)
            of_x.add_(torch.addcmul(constant.view(shape), x, factor.view(shape)))
        parameters = (None, None) if weight is None else (of_weight, of_bias)
        return of_x, *parameters, None, None, None, None


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]
