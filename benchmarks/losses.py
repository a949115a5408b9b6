"""Our losses beside the official asymmetric loss and PyTorch's cross-entropy: forward and backward.

Run `python benchmarks/losses.py` (256 x 9,600 cells; `--rows`, `--labels`, `--threads`, `--compile`). Medians of
runs in turn; read the ratios. Peak memory is what the process holds beyond the logits and targets.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pipeline.training.losses import AsymmetricLoss, BinaryCrossEntropy, FocalLoss

Loss = Callable[[Tensor, Tensor], Tensor]
SETTINGS = [(2.0, 0.0, 0.0), (4.0, 1.0, 0.05)]  # gamma_neg, gamma_pos, clip


def official(gamma_neg: float, gamma_pos: float, clip: float) -> Loss:
    """`AsymmetricLossOptimized` of github.com/Alibaba-MIIL/ASL restated, its focusing weight differentiated."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        anti_targets = 1 - targets
        xs_pos = torch.sigmoid(logits)
        xs_neg = 1.0 - xs_pos
        if clip > 0:
            xs_neg = (xs_neg + clip).clamp(max=1)
        cells = targets * torch.log(xs_pos.clamp(min=1e-8))
        cells = cells + anti_targets * torch.log(xs_neg.clamp(min=1e-8))
        xs_pos, xs_neg = xs_pos * targets, xs_neg * anti_targets
        weight = torch.pow(1 - xs_pos - xs_neg, gamma_pos * targets + gamma_neg * anti_targets)
        return -(cells * weight).sum()

    return loss


def candidates(*, compiled: bool) -> dict[str, Loss]:
    """Everything measured, by name."""
    found: dict[str, Loss] = {"PyTorch cross-entropy": F.binary_cross_entropy_with_logits}
    found["our cross-entropy"] = BinaryCrossEntropy()
    found["our focal loss, gamma 2"] = FocalLoss()
    for gamma_neg, gamma_pos, clip in SETTINGS:
        name = f"asymmetric loss ({gamma_neg:g}, {gamma_pos:g}, {clip:g})"
        ours = AsymmetricLoss(gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip)
        found[f"official {name}"] = official(gamma_neg, gamma_pos, clip)
        found[f"our {name}"] = ours
        if compiled:
            found[f"our {name}, compiled"] = torch.compile(ours)
    return found


def run_once(loss: Loss, logits: Tensor, targets: Tensor) -> None:
    """One forward and backward pass."""
    x = logits.detach().requires_grad_()
    torch.autograd.backward(loss(x, targets))


def milliseconds(loss: Loss, logits: Tensor, targets: Tensor) -> float:
    """Wall time of one pass."""
    begin = time.perf_counter()
    run_once(loss, logits, targets)
    return 1000 * (time.perf_counter() - begin)


def peak_mebibytes(loss: Loss, logits: Tensor, targets: Tensor) -> float:
    """The largest sum of living allocations during one pass."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run_once(loss, logits, targets)
    living = peak = 0
    assert profiled.profiler is not None
    assert profiled.profiler.kineto_results is not None
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            living += event.nbytes()
            peak = max(peak, living)
    return peak / 2**20


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--labels", type=int, default=9_600)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(options.rows, options.labels, generator=generator) - 2
    targets = (torch.rand(options.rows, options.labels, generator=generator) < 0.01).float()
    losses = candidates(compiled=options.compile)
    times: dict[str, list[float]] = {name: [] for name in losses}
    for turn in range(options.rounds + 2):
        for name, loss in losses.items():
            elapsed = milliseconds(loss, logits, targets)
            if turn >= 2:  # the first turns warm up, or compile
                times[name].append(elapsed)
    table = Table(
        title=f"{options.rows} x {options.labels} cells, {options.threads} thread(s), torch {torch.__version__}"
    )
    for column in ("loss", "median ms", "official / ours", "peak MiB"):
        table.add_column(column, justify="left" if column == "loss" else "right")
    for name, measured in times.items():
        rival = times.get("official" + name.removeprefix("our").removesuffix(", compiled"))
        pairs = zip(rival, measured, strict=True) if rival and name.startswith("our") else []
        ratios = [theirs / ours for theirs, ours in pairs]
        table.add_row(
            name,
            f"{statistics.median(measured):.1f}",
            f"{statistics.median(ratios):.2f}" if ratios else "",
            f"{peak_mebibytes(losses[name], logits, targets):.0f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
