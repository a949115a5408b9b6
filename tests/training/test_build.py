"""From the config to one fold's objects: what starts the network, what is frozen, how the loss is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from pipeline.config import Config, changed_training_keys, check_config, dump_config
from pipeline.errors import ConfigError
from pipeline.events import notes_into
from pipeline.model.build import backbone_of, build_model
from pipeline.training.build import build_loss, build_training
from pipeline.training.build_prediction import build_runtime
from pipeline.training.loop import Training
from pipeline.training.losses import DistributionBalancedLoss, MultiLabelLoss

LABELS = ("a", "b", "c")
MODEL = {
    "backbone": "resnet18",
    "pretrained": False,
    "hidden_dim": 16,
    "heads": 2,
    "ffn_dim": 16,
    "encoder_layers": 0,
    "decoder_layers": 1,
}


def make_config(**changes: Any) -> Config:
    """Images of 64 pixels give four positions: over a single one, attention has nothing to choose."""
    sections = {name: dict(keys) for name, keys in changes.items()}
    sections["model"] = MODEL | sections.get("model", {})
    return check_config({"images": {"size": 64}, **sections}, source="test")


def train_one_step(training: Training) -> None:
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    targets = torch.tensor([[1.0, 0.0, 1.0]]).expand(4, -1)
    training.prepared.train()
    loss = F.binary_cross_entropy_with_logits(training.prepared(training.normalizer(images)), targets)
    training.accelerator.backward(loss)
    training.optimizer.step()


def changed(before: dict[str, torch.Tensor], model: nn.Module) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


class TestFreezing:
    @pytest.mark.parametrize("freeze", [[], ["stem"], ["batch_norm"], ["stem", "batch_norm"]])
    def test_a_step_changes_all_but_what_is_frozen(self, freeze: list[str]) -> None:
        training = build_training(make_config(model={"freeze": freeze}), fold=0, labels=LABELS, total_steps=2)
        before = {name: value.clone() for name, value in training.model.state_dict().items()}
        train_one_step(training)
        moved = changed(before, training.model)
        stem = {name for name in moved if name.startswith(("backbone.body.conv1", "backbone.body.layer1"))}
        norms = {name for name in moved if ".bn" in name and not name.startswith("backbone.body.layer1")}
        assert bool({name for name in stem if name.endswith("conv1.weight")}) is ("stem" not in freeze)
        assert bool(norms) is ("batch_norm" not in freeze)
        assert "query_embed" in moved
        assert any(name.startswith("backbone.body.layer4") for name in moved)

    def test_the_optimizer_holds_trainable_parameters_only(self) -> None:
        training = build_training(make_config(model={"freeze": ["stem"]}), fold=0, labels=LABELS, total_steps=2)
        held = [each for group in training.optimizer.param_groups for each in group["params"]]
        assert all(each.requires_grad for each in held)
        assert len(held) == sum(each.requires_grad for each in training.model.parameters())

    def test_a_held_backbone_keeps_even_its_statistics_and_is_let_go_again(self) -> None:
        config = make_config(model={"freeze": ["stem"]}, train={"lr": 1e-3})
        training = build_training(config, fold=0, labels=LABELS, total_steps=4)
        before = {name: value.clone() for name, value in training.model.state_dict().items()}
        backbone_of(training.model).hold(True)
        train_one_step(training)
        assert not {name for name in changed(before, training.model) if name.startswith("backbone.")}
        assert "projection.weight" in changed(before, training.model)
        backbone_of(training.model).hold(False)
        train_one_step(training)
        moved = changed(before, training.model)
        assert any(name.startswith("backbone.body.layer4") for name in moved)
        assert "backbone.body.layer1.0.conv1.weight" not in moved  # frozen for good


class TestRates:
    def test_the_backbone_may_learn_at_a_rate_of_its_own(self) -> None:
        assert rates(make_config(train={"lr": 1e-3, "backbone_lr": 1e-5})) == {"backbone": {1e-5}, "rest": {1e-3}}
        assert rates(make_config(train={"lr": 1e-3})) == {"backbone": {1e-3}, "rest": {1e-3}}

    def test_rates_fall_from_the_head_to_the_stem(self) -> None:
        config = make_config(train={"lr": 1.0, "layer_decay": 0.5})
        by_name = rate_by_name(build_training(config, fold=0, labels=LABELS, total_steps=2))
        first, last = by_name["backbone.body.conv1.weight"], by_name["backbone.body.layer4.1.conv2.weight"]
        assert first == min(by_name.values()) == 0.5 ** (len(set(by_name.values())) - 1)
        assert last == 1.0 == by_name["query_embed"]


def rate_by_name(training: Training) -> dict[str, float]:
    """Each parameter's peak rate, which the schedule multiplies."""
    names = {id(parameter): name for name, parameter in training.model.named_parameters()}
    groups = training.optimizer.param_groups
    return {names[id(each)]: group["initial_lr"] for group in groups for each in group["params"]}


def rates(config: Config) -> dict[str, set[float]]:
    parts: dict[str, set[float]] = {"backbone": set(), "rest": set()}
    for name, rate in rate_by_name(build_training(config, fold=0, labels=LABELS, total_steps=2)).items():
        parts["backbone" if name.startswith("backbone.") else "rest"].add(rate)
    return parts


def test_gradient_checkpointing_keeps_less_and_gives_the_same_gradient() -> None:
    gradients, kept = [], []
    for checkpointing in (False, True):
        config = make_config(train={"gradient_checkpointing": checkpointing}, model={"dropout": 0.0})
        model = build_training(config, fold=0, labels=LABELS, total_steps=2).model.train()
        torch.manual_seed(1)
        cells = [0]

        def keep(tensor: torch.Tensor, cells: list[int] = cells) -> torch.Tensor:
            cells[0] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(torch.rand(4, 3, 64, 64)).square().sum()
        kept.append(cells[0])
        loss.backward()
        gradients.append({name: each.grad for name, each in model.named_parameters()})
    assert kept[1] < kept[0] / 2
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_a_network_that_cannot_compute_activations_again_is_refused() -> None:
    backbone = backbone_of(build_training(make_config(), fold=0, labels=LABELS, total_steps=2).model)
    backbone.body = nn.Identity()
    with pytest.raises(ConfigError, match="cannot compute its activations again"):
        backbone.checkpoint_gradients()


class TestQueryInit:
    def test_the_queries_start_from_the_array(self, tmp_path: Path) -> None:
        path = tmp_path / "names.npy"
        values = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
        np.save(path, values)
        config = make_config(model={"query_init": str(path)})
        training = build_training(config, fold=0, labels=LABELS, total_steps=2)
        np.testing.assert_array_equal(training.model.state_dict()["query_embed"].numpy(), values)
        path.unlink()  # trained weights take its place: nothing outside a run folder is read
        build_model(config.model, config.images, num_labels=3, pretrained=False)

    def test_a_head_without_queries_is_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "names.npy", np.zeros((3, 16)))
        config = make_config(model={"query_init": str(tmp_path / "names.npy"), "head": "gap"})
        with pytest.raises(ConfigError, match=r"model\.head=gap has no label queries"):
            build_training(config, fold=0, labels=LABELS, total_steps=2)


def test_the_balanced_loss_counts_the_training_rows_of_its_fold_only() -> None:
    config = make_config(loss={"name": "db", "rebalance_mu": 0.2, "tolerance_lambda": 2, "tolerance_kappa": 1})
    table = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]], np.float32)
    with torch.random.fork_rng():
        training = build_training(config, fold=0, labels=LABELS, targets=table[:3], total_steps=2)
    loss = training.loss_function
    expected = DistributionBalancedLoss(trained=torch.from_numpy(table[:3]), mu=0.2, lambda_=2, kappa=1)
    logits = torch.tensor([[0.5, -0.5, 1.0]])
    assert loss(logits, torch.ones(1, 3)) == expected(logits, torch.ones(1, 3))


@pytest.mark.parametrize("name", ["asl", "focal"])
def test_the_focusing_weight_is_differentiated_or_not(name: str) -> None:
    """Not differentiated, the slope of a negative is p^gamma times that of its cross-entropy."""

    def slope(loss: MultiLabelLoss) -> float:
        logit = torch.tensor([[0.3]], requires_grad=True)
        loss(logit, torch.zeros(1, 1)).backward()
        assert logit.grad is not None
        return logit.grad.item()

    p = torch.sigmoid(torch.tensor(0.3)).item()
    plain = build_loss(make_config(loss={"name": name, "differentiate_weight": False}).loss, labels=LABELS)
    assert slope(plain) == pytest.approx(p**2 * p, rel=1e-5)
    assert slope(build_loss(make_config(loss={"name": name}).loss, labels=LABELS)) > 1.2 * p**3


class TestParametersPerLabel:
    def test_a_mapping_is_put_into_the_order_of_the_labels(self) -> None:
        config = make_config(loss={"gamma_neg": {"c": "3e0", "a": 1, "b": 2}, "clip": {"a": 0, "b": 0.1, "c": 0.2}})
        loss = build_loss(config.loss, labels=LABELS)
        logits = torch.tensor([[0.5, -0.5, 1.0]])
        alone = [
            build_loss(make_config(loss={"gamma_neg": gamma, "clip": clip}).loss, labels=LABELS)(
                logits[:, [place]], torch.zeros(1, 1)
            )
            for place, (gamma, clip) in enumerate([(1, 0), (2, 0.1), (3, 0.2)])
        ]
        torch.testing.assert_close(loss(logits, torch.zeros(1, 3), reduction="sum"), torch.stack(alone).sum())

    def test_it_must_name_every_label_and_no_other(self) -> None:
        for gamma, part in (({"a": 1, "b": 2}, "no number for c"), ({"a": 1, "b": 2, "c": 3, "cc": 4}, "'c'")):
            with pytest.raises(ConfigError, match=r"loss\.gamma_neg does not fit") as caught:
                build_loss(make_config(loss={"gamma_neg": gamma}).loss, labels=LABELS)
            assert part in str(caught.value)

    def test_a_wrong_number_is_one_mistake(self) -> None:
        for value in (-1, {"a": -1}, {}, "many", [1, 2]):
            with pytest.raises(ConfigError, match="1 mistake") as caught:
                make_config(loss={"gamma_neg": value})
            assert "loss.gamma_neg: expected a number from 0 to 1000, or a mapping" in str(caught.value)

    def test_it_survives_being_written_down(self) -> None:
        config = make_config(loss={"gamma_neg": {"a": 1.5, "b": 2.0, "c": 3.0}})
        assert check_config(yaml.safe_load(dump_config(config)), source="dump") == config
        assert changed_training_keys(make_config(), config)["loss.gamma_neg.a"] == (None, 1.5)


@pytest.mark.slow
def test_a_compiled_training_step_moves_the_weights_as_a_plain_one() -> None:
    results = []
    for compiled in (False, True):
        config = make_config(train={"compile": compiled, "lr": 1e-3}, model={"dropout": 0.0})
        training = build_training(config, fold=0, labels=LABELS, total_steps=2)
        torch.manual_seed(1)
        train_one_step(training)
        results.append({name: value.clone() for name, value in training.model.state_dict().items()})
    assert results[0].keys() == results[1].keys()  # a checkpoint is the same whether compiled or not
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-3, atol=2e-3, msg=name)


@pytest.mark.parametrize(
    ("free", "workers", "words"),
    [(1e9, 2, []), (64 * 2**10, 0, ["loads the images itself"]), (2**21, 2, ["through pipes", "--shm-size=1g"])],
)
def test_a_small_shared_memory_is_noted(
    free: float, workers: int, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.training.build_prediction.free_shared_memory", lambda: free)
    config = check_config({"train": {"workers": 2}, "images": {"size": 512}, "model": {"pretrained": False}}, source="")
    notes: list[str] = []
    runtime = build_runtime(config, listen=notes_into(notes))
    assert runtime.workers == workers
    assert bool(notes) == bool(words)
    assert all(word in notes[0] for word in words)
