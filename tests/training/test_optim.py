"""Parameter groups, learning rates and the averaged weights."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from pipeline.model.backbone import build_backbone
from pipeline.model.query2label import Query2Label
from pipeline.training.optim import WarmEma, build_optimizer, build_schedule, lr_factor


def _model() -> Query2Label:
    backbone = build_backbone("test_resnet", pretrained=False, feature_stride=16, size=(32, 32))
    return Query2Label(backbone, num_labels=3, hidden_dim=16, heads=2, ffn_dim=16, encoder_layers=1, decoder_layers=1)


def test_norms_biases_and_queries_do_not_decay_and_nothing_is_left_out() -> None:
    model = _model()
    optimizer = build_optimizer(model, lr=1e-3, weight_decay=0.1)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        plain = parameter.ndim <= 1 or "query_embed" in name
        assert decay[id(parameter)] == (0.0 if plain else 0.1), name
    assert any("query_embed" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("warmup", [0.1, 0.2, 0.5])
def test_onecycle_is_torchs_without_the_momentum_cycle(warmup: float) -> None:
    total, peak = 50, 0.3
    parameter = nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        theirs, max_lr=peak, total_steps=total, pct_start=warmup, cycle_momentum=False
    )
    for step in range(total):
        ours = peak * lr_factor(step, total=total, warmup=warmup, schedule="onecycle")
        assert ours == pytest.approx(reference.get_last_lr()[0], rel=1e-6)
        theirs.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reference.step() if step < total - 1 else None


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.2])
def test_every_schedule_rises_then_falls_to_almost_nothing(schedule: str, warmup: float) -> None:
    factors = [lr_factor(step, total=40, warmup=warmup, schedule=schedule) for step in range(41)]  # type: ignore[arg-type]
    top = factors.index(max(factors))
    assert factors[:top] == sorted(factors[:top])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] < 1e-4
    assert top <= 0.2 * 40


def test_a_run_of_one_step_has_a_learning_rate() -> None:
    assert 0 < lr_factor(0, total=1, warmup=0.2, schedule="cosine") <= 1


def test_the_schedule_sets_the_optimizers_rate() -> None:
    optimizer = build_optimizer(_model(), lr=2.0, weight_decay=0.0)
    schedule = build_schedule(optimizer, total=10, warmup=0.5, schedule="cosine")
    assert schedule.get_last_lr()[0] == pytest.approx(2.0 * lr_factor(0, total=10, warmup=0.5, schedule="cosine"))


def test_the_average_follows_its_formula_for_parameters_and_buffers() -> None:
    model = nn.BatchNorm1d(1)
    ema = WarmEma(model, decay=0.3)
    expected = 0.0
    for update, value in enumerate([4.0, 8.0, 1.0, 2.0]):
        with torch.no_grad():
            model.running_mean.fill_(value)  # type: ignore[union-attr]
            model.weight.fill_(value)
        ema.update(model, step=update)
        decay = min(0.3, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value
        assert ema.module.running_mean.item() == pytest.approx(expected)
    assert ema.module.weight.item() != 1.0
    assert not ema.module.training
