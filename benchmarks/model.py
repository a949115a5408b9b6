"""Our Query2Label beside a restatement of the official layer stack: training steps and evaluation.

Run `python benchmarks/model.py` (ResNet-50, hidden 512, FFN 2048, 80 labels, batch 16, 224 px), and with
`--hidden 2048 --ffn 8192` for the official widths; `--device cuda --amp bfloat16` on a GPU, `--compile` for ours
compiled too, `--profile` for where our time goes. Both freeze batch norm and the stem, as the official recipe
does. Medians of runs in turn; read the ratios.

Restated: sequence-first nn.MultiheadAttention that returns its weights, a frozen batch norm of separate products,
contiguous tensors, AdamW one tensor at a time, the asymmetric loss through autograd.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator

import timm
import torch
from losses import official
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from pipeline.model.backbone import build_backbone
from pipeline.model.position import sine_position_encoding
from pipeline.model.query2label import Query2Label
from pipeline.training.losses import AsymmetricLoss
from pipeline.training.optim import build_optimizer

Step = Callable[[], object]


class FrozenBatchNorm(nn.Module):
    """Scale and shift from frozen statistics, computed anew in each pass, as in DETR."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, getattr(norm, name).detach())

    def forward(self, x: Tensor) -> Tensor:
        """x * scale + bias."""
        weight, bias, mean, var = (buffer.reshape(1, -1, 1, 1) for buffer in self.buffers())
        scale = weight * (var + 1e-5).rsqrt()
        return x * scale + (bias - mean * scale)


class ReferenceLayer(nn.Module):
    """A post-norm encoder layer, or a decoder layer without self-attention: the same parts, other inputs."""

    def __init__(self, dim: int, heads: int, ffn_dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout)
        self.linear1, self.linear2 = nn.Linear(dim, ffn_dim), nn.Linear(ffn_dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """All sequence first, (length, B, D)."""
        x = self.norm1(x + self.dropout(self.attention(query, key, value)[0]))
        update = self.linear2(self.dropout(torch.relu(self.linear1(x))))
        result: Tensor = self.norm2(x + self.dropout(update))
        return result


class Reference(nn.Module):
    """The official model, restated."""

    position: Tensor

    def __init__(self, backbone: str, *, num_labels: int, hidden_dim: int, heads: int, ffn_dim: int) -> None:
        super().__init__()
        self.body = timm.create_model(backbone, features_only=True, out_indices=(4,))
        channels = self.body.feature_info.channels()[0]  # type: ignore[union-attr, operator]
        self.projection = nn.Identity() if channels == hidden_dim else nn.Conv2d(channels, hidden_dim, 1)
        self.encoder = ReferenceLayer(hidden_dim, heads, ffn_dim)
        self.decoder = nn.ModuleList(ReferenceLayer(hidden_dim, heads, ffn_dim) for _ in range(2))
        self.norm = nn.LayerNorm(hidden_dim)
        self.query_embed = nn.Embedding(num_labels, hidden_dim)
        self.weight = nn.Parameter(torch.randn(1, num_labels, hidden_dim) / hidden_dim**0.5)
        self.bias = nn.Parameter(torch.zeros(1, num_labels))
        self.register_buffer("position", torch.empty(0), persistent=False)
        for name, module in list(self.body.named_modules()):
            if isinstance(module, nn.BatchNorm2d):
                owner, _, leaf = name.rpartition(".")
                setattr(self.body.get_submodule(owner), leaf, FrozenBatchNorm(module))
        for name, parameter in self.body.named_parameters():
            parameter.requires_grad_(name.startswith(("layer2", "layer3", "layer4")))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, K)."""
        features = self.projection(self.body(images)[0])
        if self.position.shape[-2:] != features.shape[-2:]:
            channels, height, width = features.shape[1:]
            self.position = sine_position_encoding(height, width, channels, device=images.device)
        place = self.position.flatten(2).permute(2, 0, 1).repeat(1, len(images), 1).to(features.dtype)
        memory = features.flatten(2).permute(2, 0, 1)
        memory = self.encoder(memory, memory + place, memory + place, memory)
        queries = self.query_embed.weight.unsqueeze(1).repeat(1, len(images), 1)
        state = torch.zeros_like(queries)
        for layer in self.decoder:
            state = layer(state, state + queries, memory + place, memory)
        logits: Tensor = (self.weight * self.norm(state).transpose(0, 1)).sum(-1) + self.bias
        return logits


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--ffn", type=int, default=2048)
    parser.add_argument("--labels", type=int, default=80)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", choices=["bfloat16", "float16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--profile", action="store_true")
    return parser.parse_args()


def build_ours(options: argparse.Namespace) -> Query2Label:
    """Our model with the reference's shapes, channels last."""
    size = (options.size, options.size)
    backbone = build_backbone(options.backbone, pretrained=False, feature_stride=32, size=size)
    backbone.freeze(stem=True, batch_norm=True)
    model = Query2Label(
        backbone,
        num_labels=options.labels,
        hidden_dim=options.hidden,
        ffn_dim=options.ffn,
        input_projection=options.hidden != backbone.channels,
    )
    return model.to(options.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class Contender:
    """A model with its optimizer and loss; `train` and `evaluate` are what is timed."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Callable[[Tensor, Tensor], Tensor],
        images: Tensor,
        options: argparse.Namespace,
    ) -> None:
        self.model, self.optimizer, self.loss, self.images = model, optimizer, loss, images
        self.device, self.amp = options.device, options.amp
        self.scaler = torch.amp.GradScaler(options.device, enabled=options.amp == "float16")
        self.targets = (torch.rand(options.batch, options.labels, device=options.device) < 0.05).float()

    def precision(self) -> contextlib.AbstractContextManager[object]:
        """Autocast, where asked for."""
        if self.amp is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=getattr(torch, self.amp))

    def train(self) -> None:
        """One optimizer step."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision():
            logits = self.model(self.images)
        torch.autograd.backward(self.scaler.scale(self.loss(logits.float(), self.targets)))
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def evaluate(self) -> None:
        """One forward pass."""
        self.model.eval()
        with torch.inference_mode(), self.precision():
            self.model(self.images)


def contenders(options: argparse.Namespace) -> Iterator[tuple[str, Contender]]:
    """Reference, ours, and where asked for ours compiled."""
    images = torch.randn(options.batch, 3, options.size, options.size, device=options.device)
    sizes = {"num_labels": options.labels, "hidden_dim": options.hidden, "heads": 4, "ffn_dim": options.ffn}
    reference = Reference(options.backbone, **sizes).to(options.device)
    plain = torch.optim.AdamW(
        [parameter for parameter in reference.parameters() if parameter.requires_grad],
        lr=1e-5,
        weight_decay=1e-2,
        foreach=False,
        fused=False,
    )
    yield "reference", Contender(reference, plain, official(2.0, 0.0, 0.0), images, options)
    images = images.contiguous(memory_format=torch.channels_last)
    for name in ["ours", "ours, compiled"] if options.compile else ["ours"]:
        model = build_ours(options)
        optimizer = build_optimizer(model, lr=1e-5, weight_decay=1e-2)
        if "compiled" in name:
            model.compile()
        yield name, Contender(model, optimizer, AsymmetricLoss(), images, options)


def count_flops(contender: Contender, *, training: bool) -> int:
    """Of one forward pass, and the backward one in training."""
    with FlopCounterMode(display=False) as counter:
        logits = contender.model.eval()(contender.images)
        if training:
            torch.autograd.backward(logits.sum())
    return int(counter.get_total_flops())


def seconds(step: Step, device: str) -> float:
    """Wall time of one step, the device's work included."""
    begin = time.perf_counter()
    step()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print a table."""
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    found = dict(contenders(options))
    flops = {kind: count_flops(found["ours"], training=kind == "training") for kind in ("training", "evaluation")}
    steps: dict[tuple[str, str], Step] = {}
    for name, contender in found.items():
        steps[name, "training"], steps[name, "evaluation"] = contender.train, contender.evaluate
    times: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    memory: dict[tuple[str, str], float] = {}
    for turn in range(options.rounds + 1):  # the first turn warms up, or compiles
        for key, step in steps.items():
            if options.device != "cpu":
                torch.cuda.reset_peak_memory_stats()
            elapsed = seconds(step, options.device)
            if turn:
                times[key].append(elapsed)
            memory[key] = torch.cuda.max_memory_allocated() / 2**30 if options.device != "cpu" else 0.0
    table = Table(
        title=f"{options.backbone}, hidden {options.hidden}, FFN {options.ffn}, {options.labels} labels, batch "
        f"{options.batch}, {options.size} px, {options.device}, {options.amp or 'float32'}, torch {torch.__version__}"
    )
    for column in ("", "", "images / s", "reference / ours", "TFLOP / s", "peak GiB"):
        table.add_column(column, justify="right" if column else "left")
    for (name, kind), measured in times.items():
        median = statistics.median(measured)
        ratio = statistics.median(a / b for a, b in zip(times["reference", kind], measured, strict=True))
        table.add_row(
            name,
            kind,
            f"{options.batch / median:.2f}",
            f"{ratio:.2f}",
            f"{flops[kind] / median / 1e12:.3f}",
            f"{memory[name, kind]:.1f}" if memory[name, kind] else "",
        )
    Console(width=120).print(table)
    if options.profile:
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            found["ours"].train()
        Console(width=160).print(profiled.key_averages().table(sort_by="self_cpu_time_total", row_limit=15))


if __name__ == "__main__":
    main()
