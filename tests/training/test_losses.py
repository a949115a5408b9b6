from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from pipeline.training.losses import (
    LOSSES,
    AsymmetricLoss,
    BinaryCrossEntropy,
    DistributionBalancedLoss,
    FocalLoss,
    MultiLabelLoss,
    known_cells,
)

NAN = math.nan
Floats = NDArray[np.float64]


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    torch.manual_seed(0)


def loss_and_gradient(loss: MultiLabelLoss, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    x = logits.clone().requires_grad_()
    value = loss(x, targets, reduction="sum")
    value.backward()
    assert x.grad is not None
    return value.detach(), x.grad


def reference(
    logits: Tensor, targets: Tensor, *, gamma_neg: float, gamma_pos: float, clip: float, differentiate: bool
) -> tuple[Tensor, Tensor]:
    """The definition, in float64, differentiated by autograd; a cell below the margin has no gradient."""
    x, y = logits.double().requires_grad_(), targets.double()
    log_p, log_rest = F.logsigmoid(x), F.logsigmoid(-x)
    focus_pos, focus_neg, surprise = (gamma_pos * log_rest).exp(), (gamma_neg * log_p).exp(), -log_rest
    below = torch.zeros_like(x, dtype=torch.bool)
    if clip > 0:
        below = torch.sigmoid(x) <= clip
        q = torch.where(below, 0.5, torch.sigmoid(x) - clip)
        focus_neg = q**gamma_neg
        surprise = -torch.log(torch.where(below, 1.0, torch.sigmoid(-x) + clip))  # 1 - q, with all its digits
    if not differentiate:
        focus_pos, focus_neg = focus_pos.detach(), focus_neg.detach()
    negatives = torch.where(below, 0.0, focus_neg * surprise)
    cells = y * focus_pos * -log_p + (1 - y) * negatives
    total = torch.where(y.isnan(), 0.0, cells).sum()
    (slope,) = torch.autograd.grad(total, x)
    return total.detach(), torch.where(y.isnan(), 0.0, slope)


logit_values = st.one_of(
    st.floats(-12, 12, width=32), st.sampled_from([0.0, -1e4, 1e4, -104.0, 104.0, -88.5, 88.5, 16.7, -16.7])
)
target_values = st.one_of(st.sampled_from([0.0, 1.0, NAN]), st.floats(0, 1, width=32))
gammas = st.one_of(st.sampled_from([0.0, 0.3, 0.5, 1.0, 2.0, 4.0]), st.floats(0, 8, width=32))
clips = st.one_of(st.sampled_from([0.0, 0.05, 0.2, 0.9, 1e-9]), st.floats(2**-30, 0.9375, width=32))


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    shape = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    cells = shape[0] * shape[1]
    logits = draw(st.lists(logit_values, min_size=cells, max_size=cells))
    targets = draw(st.lists(target_values, min_size=cells, max_size=cells))
    return torch.tensor(logits).view(shape), torch.tensor(targets).view(shape)


class TestAsymmetricLoss:
    @given(batches(), gammas, gammas, clips, st.booleans())
    @settings(deadline=None, max_examples=300)
    def test_equals_the_float64_reference_and_is_always_finite(
        self, batch: tuple[Tensor, Tensor], gamma_neg: float, gamma_pos: float, clip: float, differentiate: bool
    ) -> None:
        logits, targets = batch
        loss = AsymmetricLoss(gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip, differentiate_weight=differentiate)
        value, gradient = loss_and_gradient(loss, logits, targets)
        assert value.isfinite()
        assert gradient.isfinite().all()
        expected, slope = reference(
            logits,
            targets,
            gamma_neg=gamma_neg,
            gamma_pos=gamma_pos,
            clip=clip,
            differentiate=differentiate,
        )
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
        # p and clip are float32: within that rounding of the margin, a power below 1 has any slope
        margin = (torch.sigmoid(logits.double()) - clip).abs() > 1e-3
        torch.testing.assert_close(gradient.double()[margin], slope[margin], rtol=1e-4, atol=1e-6)

    @given(batches())
    @settings(deadline=None, max_examples=100)
    def test_numbers_per_label_equal_each_label_alone(self, batch: tuple[Tensor, Tensor]) -> None:
        logits, targets = batch
        labels = logits.shape[1]
        gamma_neg, gamma_pos = [2.0, 0.0, 4.0, 0.5][:labels], [0.0, 1.0, 0.5, 2.0][:labels]
        clip = [0.0, 0.05, 0.0, 0.2][:labels]
        together = AsymmetricLoss(gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip)
        value, gradient = loss_and_gradient(together, logits, targets)
        alone = [
            loss_and_gradient(
                AsymmetricLoss(gamma_neg=gamma_neg[k], gamma_pos=gamma_pos[k], clip=clip[k]),
                logits[:, k : k + 1],
                targets[:, k : k + 1],
            )
            for k in range(labels)
        ]
        torch.testing.assert_close(value, torch.stack([v for v, _ in alone]).sum())
        torch.testing.assert_close(gradient, torch.cat([g for _, g in alone], dim=1))

    def test_without_focus_it_is_cross_entropy(self) -> None:
        logits, targets = torch.randn(5, 7), torch.rand(5, 7)
        loss = AsymmetricLoss(gamma_neg=0, gamma_pos=0)(logits, targets)
        torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, targets))

    def test_a_row_without_positives_and_a_gamma_below_one(self) -> None:
        logits = torch.tensor([[-1e4, -200.0, -3.0, 0.0, 1e4]])
        for clip in (0.0, 0.05, 0.5):
            _, gradient = loss_and_gradient(AsymmetricLoss(gamma_neg=0.5, clip=clip), logits, torch.zeros(1, 5))
            assert gradient.isfinite().all()
            assert gradient[0, 0] == 0

    @pytest.mark.parametrize("gamma_neg", [0.0, 0.3, 0.5, 1.0])
    @pytest.mark.parametrize("clip", [0.05, 0.0454415237903595, 0.9436833441257477])  # p and 1 - p round apart
    def test_the_gradient_is_small_right_at_the_margin(self, gamma_neg: float, clip: float) -> None:
        """Where q is a rounding error, q^(gamma - 1) is huge: its factor must vanish with it."""
        margin = math.log(clip / (1 - clip))
        logits = margin + torch.linspace(-3e-6, 3e-6, 3001, dtype=torch.float64)[None]
        _, gradient = loss_and_gradient(
            AsymmetricLoss(gamma_neg=gamma_neg, clip=clip), logits.float(), torch.zeros(logits.shape)
        )
        assert gradient.abs().max() <= clip + 1e-6  # at gamma 0 the slope beyond the margin is p

    def test_soft_targets_weigh_the_two_terms(self) -> None:
        logits = torch.linspace(-4, 4, 9)[None]
        loss = AsymmetricLoss(gamma_neg=3, gamma_pos=1, clip=0.1)
        soft = loss(logits, torch.full((1, 9), 0.3))
        hard = 0.3 * loss(logits, torch.ones(1, 9)) + 0.7 * loss(logits, torch.zeros(1, 9))
        torch.testing.assert_close(soft, hard)

    @pytest.mark.parametrize(
        ("options", "named"),
        [({"gamma_neg": -1.0}, "gamma_neg"), ({"clip": 1.0}, "clip"), ({"gamma_pos": [[1.0]]}, "gamma_pos")],
    )
    def test_refuses_what_makes_no_sense(self, options: dict[str, Any], named: str) -> None:
        with pytest.raises(ValueError, match=f"expected {named}"):
            AsymmetricLoss(**options)


def db_reference(
    x: Floats, y: Floats, trained: Floats, *, gamma: float, soft_weight: float, scale: float, kappa: float
) -> Floats:
    """Each cell's loss by the formulas of Wu et al. 2020 with alpha 0.1, beta 10 and mu `soft_weight`, in float64."""
    cells = np.zeros(x.shape)
    n = [max(np.nansum(trained[:, i]), 1.0) for i in range(x.shape[1])]
    without = [max(np.nansum(1 - trained[:, i]), 1.0) for i in range(x.shape[1])]
    for k, i in np.ndindex(x.shape):
        if np.isnan(y[k, i]):
            continue
        repeated = sum(y[k, j] / n[j] for j in range(x.shape[1]) if not np.isnan(y[k, j]))  # C times P^I
        r = 1 / n[i] / repeated if repeated else np.inf
        weight = 0.1 + 1 / (1 + np.exp(-10 * (r - soft_weight)))
        nu = -kappa * -np.log((n[i] + without[i]) / n[i] - 1)
        positive, negative = np.logaddexp(0, nu - x[k, i]), np.logaddexp(0, scale * (x[k, i] - nu))
        positive *= (1 - np.exp(-positive)) ** gamma
        negative *= (1 - np.exp(-negative)) ** gamma / scale
        cells[k, i] = weight * (y[k, i] * positive + (1 - y[k, i]) * negative)
    return cells


class TestDistributionBalancedLoss:
    TRAINED = torch.tensor([[1, 0, 1, 0.5], [1, 0, 0, NAN], [1, 0, NAN, 1], [1, 0, 0, 0]])  # always, never, rare, soft

    @given(batches(), st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([1.0, 5.0]), st.sampled_from([0.0, 0.05, 1.0]))
    @settings(deadline=None, max_examples=200)
    def test_equals_the_float64_reference_and_its_gradient_finite_differences(
        self, batch: tuple[Tensor, Tensor], gamma: float, scale: float, kappa: float
    ) -> None:
        logits, targets = batch
        trained = self.TRAINED[:, : logits.shape[1]]
        loss = DistributionBalancedLoss(trained=trained, gamma=gamma, mu=0.2, lambda_=scale, kappa=kappa)
        value, gradient = loss_and_gradient(loss, logits, targets)
        assert value.isfinite()
        assert gradient.isfinite().all()
        x, y, known = (tensor.numpy().astype(np.float64) for tensor in (logits, targets, trained))

        def cells(x: Floats) -> Floats:
            return db_reference(x, y, known, gamma=gamma, soft_weight=0.2, scale=scale, kappa=kappa)

        assert value.item() == pytest.approx(cells(x).sum(), rel=1e-5, abs=1e-6)
        slopes = (cells(x + 1e-6) - cells(x - 1e-6)) / 2e-6  # a cell depends on its own logit only
        np.testing.assert_allclose(gradient.numpy(), slopes, rtol=1e-3, atol=1e-3)

    def test_without_weights_tolerance_and_focus_it_is_cross_entropy(self) -> None:
        logits, targets = torch.randn(5, 4), torch.rand(5, 4)
        loss = DistributionBalancedLoss(trained=self.TRAINED, alpha=0.5, beta=0, lambda_=1, kappa=0, gamma=0)
        torch.testing.assert_close(loss(logits, targets), F.binary_cross_entropy_with_logits(logits, targets))


def parity_cases() -> list[Path]:
    folders = (parent / "shared" / "parity" for parent in Path(__file__).resolve().parents)
    return sorted(next((folder for folder in folders if folder.is_dir()), Path("none")).glob("*.json"))


@pytest.mark.skipif(not parity_cases(), reason="the reference cases are not beside this checkout")
def test_equals_the_official_loss() -> None:
    compared = 0
    for path in parity_cases():
        case = json.loads(path.read_text())
        logits = torch.tensor(case["logits"])
        targets = torch.tensor(case["targets"], dtype=torch.float32)
        for expected in case["asl"]:
            x = logits.clone().requires_grad_()
            loss = AsymmetricLoss(**{name: expected[name] for name in ("gamma_neg", "gamma_pos", "clip")})
            value = loss(x, targets)
            value.backward()
            assert x.grad is not None
            assert value.item() == pytest.approx(expected["mean_per_cell"], rel=1e-6)
            assert x.grad.norm().item() == pytest.approx(expected["grad_norm_mean"], rel=1e-6)
            compared += 1
    assert compared >= 18


class TestBinaryCrossEntropy:
    @given(batches(), st.one_of(st.none(), st.floats(0, 20, width=32)))
    @settings(deadline=None, max_examples=150)
    def test_equals_pytorch(self, batch: tuple[Tensor, Tensor], pos_weight: float | None) -> None:
        """In float64, since PyTorch's float32 loses digits to 1 + (pos_weight - 1) * y and sigmoid - 1."""
        logits, targets = batch
        value, gradient = loss_and_gradient(BinaryCrossEntropy(pos_weight=pos_weight), logits, targets)
        x = logits.double().requires_grad_()
        weight = None if pos_weight is None else torch.tensor(pos_weight, dtype=torch.float64)
        cells = F.binary_cross_entropy_with_logits(
            x, targets.double().nan_to_num(0), pos_weight=weight, reduction="none"
        )
        expected = cells[~targets.isnan()].sum()
        (slope,) = torch.autograd.grad(expected, x)
        torch.testing.assert_close(value.double(), expected.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient.double(), slope, rtol=1e-5, atol=1e-6)

    def test_takes_a_weight_per_label(self) -> None:
        logits, targets, weights = torch.randn(4, 3), torch.rand(4, 3), [1.0, 5.0, 0.5]
        expected = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=torch.tensor(weights))
        torch.testing.assert_close(BinaryCrossEntropy(pos_weight=weights)(logits, targets), expected)


class TestFocalLoss:
    def test_equals_its_definition(self) -> None:
        """Against the formula of Lin et al. 2017, eq. 5, written with p_t."""
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(6, 5, generator=generator, dtype=torch.float64) * 3
        targets = (torch.rand(6, 5, generator=generator) < 0.5).double()
        p = torch.sigmoid(logits)
        p_true = torch.where(targets == 1, p, 1 - p)
        alpha_true = torch.where(targets == 1, 0.25, 0.75)
        expected = (alpha_true * (1 - p_true) ** 2 * -p_true.log()).mean()
        value = FocalLoss(gamma=2, alpha=0.25)(logits.float(), targets)
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-7)

    def test_refuses_an_alpha_above_one(self) -> None:
        with pytest.raises(ValueError, match="alpha"):
            FocalLoss(alpha=1.5)


def loss_of(name: str, *, labels: int) -> MultiLabelLoss:
    return LOSSES[name](**({"trained": torch.eye(labels)} if name == "db" else {}))


@pytest.mark.parametrize("name", list(LOSSES))
class TestEveryLoss:
    def test_unknown_cells_change_nothing_and_get_no_gradient(self, name: str) -> None:
        loss = loss_of(name, labels=4)
        logits, targets = torch.randn(3, 4), torch.randint(0, 2, (3, 4)).float()
        full, _ = loss_and_gradient(loss, logits[:2], targets[:2])
        masked = targets.clone()
        masked[2] = NAN
        value, gradient = loss_and_gradient(loss, logits, masked)
        torch.testing.assert_close(value, full)
        assert (gradient[2] == 0).all()
        torch.testing.assert_close(loss(logits, masked), full / 8)

    def test_nothing_known_costs_nothing(self, name: str) -> None:
        assert loss_of(name, labels=3)(torch.randn(2, 3), torch.full((2, 3), NAN)) == 0

    def test_a_sum_over_parts_is_the_mean_over_all(self, name: str) -> None:
        loss = loss_of(name, labels=4)
        logits, targets = torch.randn(6, 4), torch.randint(0, 2, (6, 4)).float()
        targets[0] = NAN
        parts = [loss(logits[rows], targets[rows], reduction="sum") for rows in (slice(0, 1), slice(1, 6))]
        torch.testing.assert_close(sum(parts) / known_cells(targets), loss(logits, targets))

    def test_half_precision_logits_are_computed_in_float32(self, name: str) -> None:
        loss = loss_of(name, labels=3)
        logits, targets = torch.tensor([[-60000.0, 9.0, -9.0]]).half(), torch.tensor([[1.0, 1.0, 0.0]])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(logits, targets)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(logits.float(), targets))

    def test_leaves_the_gradient_mode_alone_and_keeps_nothing(self, name: str) -> None:
        loss = loss_of(name, labels=2)
        before = set(vars(loss))
        with torch.no_grad():
            assert not loss(torch.randn(2, 2, requires_grad=True), torch.zeros(2, 2)).requires_grad
            assert not torch.is_grad_enabled()
        assert set(vars(loss)) == before
        assert not loss.state_dict()

    def test_refuses_shapes_that_differ_and_unknown_reductions(self, name: str) -> None:
        with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
            loss_of(name, labels=3)(torch.zeros(2, 3), torch.zeros(3, 2))
        with pytest.raises(ValueError, match="mean or sum"):
            loss_of(name, labels=3)(torch.zeros(2, 3), torch.zeros(2, 3), reduction="none")

    def test_gradient_scales_with_what_follows(self, name: str) -> None:
        x = torch.randn(2, 3, requires_grad=True)
        loss = loss_of(name, labels=3)(x, torch.ones(2, 3), reduction="sum")
        (once,) = torch.autograd.grad(loss, x, retain_graph=True)
        (thrice,) = torch.autograd.grad(3 * loss, x)
        torch.testing.assert_close(thrice, 3 * once)


def test_known_cells_counts_what_is_not_nan() -> None:
    targets = torch.from_numpy(np.array([[0, 1, NAN], [NAN, 0.5, 1]]))
    assert known_cells(targets) == 4
    assert known_cells(torch.zeros(2, 3)) == 6
    assert known_cells(torch.zeros(0, 3)) == 0
