from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.model.backbone import build_backbone
from pipeline.model.query2label import GroupWiseLinear, PooledClassifier, Query2Label

SMALL: dict[str, Any] = {"hidden_dim": 16, "ffn_dim": 24, "heads": 4}


def build(num_labels: int = 6, **options: Any) -> Query2Label:
    torch.manual_seed(0)
    backbone = build_backbone("test_resnet", pretrained=False, feature_stride=16, size=(64, 64))
    return Query2Label(backbone, num_labels=num_labels, **{**SMALL, **options})


def images(height: int = 64, width: int = 64, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def trained_once(model: Query2Label) -> Query2Label:
    """Batch norm with statistics, so that evaluation shows differences between images."""
    model.train()(images(batch=8))
    return model.eval()


@pytest.mark.parametrize("height_width", [(224, 224), (320, 320), (224, 352), (100, 70)])
def test_one_model_reads_every_size(height_width: tuple[int, int]) -> None:
    model = build().eval()
    with torch.no_grad():
        logits, attention = model(images(*height_width), return_attention=True)
    assert logits.shape == (2, 6)
    height, width = (-(-side // 16) for side in height_width)
    assert [layer.shape for layer in attention] == [(2, 4, 6, height, width)] * 2


@pytest.mark.parametrize("self_attention", ["none", "first", "others", "all"])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_attention_sums_to_one_and_does_not_change_the_logits(self_attention: str, pre_norm: bool) -> None:
    model = trained_once(build(self_attention=self_attention, pre_norm=pre_norm, decoder_layers=3))
    with torch.no_grad():
        plain = model(images(64, 96))
        logits, attention = model(images(64, 96), return_attention=True)
    torch.testing.assert_close(logits, plain, rtol=0, atol=1e-5)
    assert len(attention) == 3
    for layer in attention:
        torch.testing.assert_close(layer.sum(dim=(-2, -1)), torch.ones(2, 4, 6))


@pytest.mark.parametrize(
    ("self_attention", "layers"),
    [
        ("none", [False, False, False]),
        ("first", [True, False, False]),
        ("others", [False, True, True]),
        ("all", [True, True, True]),
    ],
)
def test_label_queries_attend_to_each_other_by_self_attention(self_attention: str, layers: list[bool]) -> None:
    model = trained_once(build(self_attention=self_attention, decoder_layers=3))
    assert [layer.self_attention is not None for layer in model.decoder.layers] == layers
    before = model(images())
    with torch.no_grad():
        model.query_embed[0] += 5.0
    others_changed = not torch.allclose(model(images())[:, 1:], before[:, 1:])
    assert others_changed == any(layers[1:])  # in the first layer all states are zeros


def test_every_parameter_is_trained() -> None:
    for options in ({}, {"self_attention": "all", "pre_norm": True}, {"query_groups": 4}):
        model = build(**options)
        model(images()).square().sum().backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_the_logits_of_an_image_do_not_depend_on_its_batch() -> None:
    model = trained_once(build())
    batch = images(batch=3)
    torch.testing.assert_close(model(batch)[1:2], model(batch[1:2]), rtol=1e-4, atol=1e-5)


def test_the_order_of_labels_is_the_order_of_queries() -> None:
    model = trained_once(build())
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    before = model(images())
    with torch.no_grad():
        for parameter in (model.query_embed, model.classifier.weight, model.classifier.bias):
            parameter.copy_(parameter[order])
    torch.testing.assert_close(model(images()), before[:, order])


def test_positions_reach_the_logits() -> None:
    """Without the position encoding, rolling the feature map would change nothing."""
    model = trained_once(build(encoder_layers=0))
    features = torch.randn(1, 16, 4, 4)
    position = model.position(features)
    memory = features.flatten(2).transpose(1, 2)
    rolled = features.roll(1, dims=3).flatten(2).transpose(1, 2)
    here, _ = model.decoder(model.query_embed, memory, position)
    there, _ = model.decoder(model.query_embed, rolled, position)
    assert not torch.allclose(here, there, atol=1e-4)


class TestWidths:
    def test_without_projection_the_map_is_fed_as_it_is(self) -> None:
        model = build(hidden_dim=192, input_projection=False)
        assert model.backbone.channels == 192
        assert not list(model.projection.parameters())
        assert model(images()).shape == (2, 6)

    def test_without_projection_the_widths_must_agree(self) -> None:
        with pytest.raises(ConfigError, match=r"model.hidden_dim=192\n.*model.hidden_dim=16"):
            build(input_projection=False)


class TestQueryGroups:
    def test_as_many_groups_as_labels_are_plain_query2label(self) -> None:
        plain, grouped = trained_once(build()), trained_once(build(query_groups=6))
        grouped.load_state_dict(plain.state_dict())
        assert torch.equal(grouped(images()), plain(images()))

    @pytest.mark.parametrize(("labels", "groups"), [(6, 3), (10, 4), (10, 7), (5, 1)])
    def test_a_label_reads_the_state_of_its_group(self, labels: int, groups: int) -> None:
        layer = GroupWiseLinear(labels, 8, groups=groups)
        states = torch.randn(3, groups, 8)
        logits = layer(states)
        sizes = [0] * groups
        for label in range(labels):
            group = label * groups // labels
            sizes[group] += 1
            expected = states[:, group] @ layer.weight[label] + layer.bias[label]
            torch.testing.assert_close(logits[:, label], expected)
        assert max(sizes) - min(sizes) <= 1

    def test_the_decoder_does_not_grow_with_the_labels(self) -> None:
        model = build(num_labels=9_600, query_groups=100)
        _, attention = model.train()(images(), return_attention=True)
        assert attention[0].shape[2] == 100
        assert model.query_embed.shape == (100, 16)

    @pytest.mark.parametrize("groups", [0, 7])
    def test_refuses_more_groups_than_labels_and_none(self, groups: int) -> None:
        with pytest.raises(ConfigError, match=rf"expected: 1 to 6\n +got: +{groups}"):
            build(query_groups=groups)


class TestInitialQueries:
    def test_are_the_starting_value_and_are_trained(self) -> None:
        values = torch.randn(6, 16, dtype=torch.float64)
        model = build(initial_queries=values)
        assert torch.equal(model.query_embed, values.float())
        assert model.query_embed.requires_grad

    def test_must_fit(self) -> None:
        with pytest.raises(ConfigError, match=r"model.query_init(.|\n)*\(6, 16\)(.|\n)*\(6, 300\)"):
            build(initial_queries=torch.zeros(6, 300))


def test_checkpoints_do_not_depend_on_the_image_size() -> None:
    model, other = build(), build()
    model(images(96, 64))
    assert model.state_dict().keys() == other.state_dict().keys()


def test_the_pooled_baseline_averages_and_adds_up() -> None:
    backbone = build_backbone("test_resnet", pretrained=False, feature_stride=32, size=(64, 64)).eval()
    model = PooledClassifier(backbone, num_labels=5).eval()
    pooled = backbone(images(64, 96)).mean(dim=(2, 3))
    expected = pooled @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(images(64, 96)), expected)
