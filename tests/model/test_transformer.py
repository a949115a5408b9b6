from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipeline.model.transformer import Attention, Decoder, Encoder

DIM, HEADS = 16, 4


def filled(module: nn.Module) -> nn.Module:
    """Values that show every parameter, the biases and gains too."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
    return module.eval()


def as_pytorch(attention: Attention) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    parts = (attention.query, attention.key, attention.value)
    theirs.in_proj_weight.data = torch.cat([part.weight for part in parts])
    theirs.in_proj_bias.data = torch.cat([part.bias for part in parts])
    theirs.out_proj.load_state_dict(attention.out.state_dict())
    return theirs.eval()


class TestAttention:
    @pytest.mark.parametrize("need_weights", [False, True])
    def test_equals_pytorch(self, need_weights: bool) -> None:
        ours = Attention(DIM, heads=HEADS, dropout=0.1)
        filled(ours)
        query, key, value = torch.randn(2, 5, DIM), torch.randn(2, 7, DIM), torch.randn(2, 7, DIM)
        result, weights = ours(query, key, value, need_weights=need_weights)
        expected, mean = as_pytorch(ours)(query, key, value)
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)
        assert (weights is not None) == need_weights
        if weights is not None:
            torch.testing.assert_close(weights.mean(dim=1), mean)

    def test_a_shared_query_is_the_same_query_for_every_image(self) -> None:
        attention = Attention(DIM, heads=HEADS, dropout=0.0)
        query, memory = torch.randn(1, 5, DIM), torch.randn(3, 7, DIM)
        shared, _ = attention(query, memory, memory)
        repeated, _ = attention(query.expand(3, -1, -1), memory, memory)
        torch.testing.assert_close(shared, repeated)

    def test_starts_as_pytorch_does(self) -> None:
        """The bound of a uniform distribution, from its largest of 3 x 512^2 draws."""
        ours = Attention(512, heads=4, dropout=0.0)
        theirs = nn.MultiheadAttention(512, 4)
        largest = max(part.weight.abs().max().item() for part in (ours.query, ours.key, ours.value))
        assert largest == pytest.approx(theirs.in_proj_weight.abs().max().item(), rel=1e-3)
        assert not ours.query.bias.any()

    def test_drops_weights_in_training_only(self) -> None:
        attention = Attention(DIM, heads=HEADS, dropout=0.5)
        x = torch.randn(1, 6, DIM)
        assert not torch.equal(attention(x, x, x)[0], attention(x, x, x)[0])
        attention.eval()
        assert torch.equal(attention(x, x, x)[0], attention(x, x, x)[0])

    def test_refuses_heads_that_do_not_divide(self) -> None:
        with pytest.raises(ValueError, match="divisible by the heads"):
            Attention(10, heads=4, dropout=0.0)


def restated_encoder(encoder: Encoder, memory: Tensor, position: Tensor, *, pre_norm: bool) -> Tensor:
    """DETR's forward_post and forward_pre, on PyTorch's own attention."""
    for layer in encoder.layers:
        attend = as_pytorch(layer.self_attention)  # type: ignore[arg-type]
        if pre_norm:
            value = layer.norm1(memory)  # type: ignore[operator]
            memory = memory + attend(value + position, value + position, value)[0]
            memory = memory + layer.feed_forward(layer.norm2(memory))  # type: ignore[operator]
        else:
            placed = memory + position
            memory = layer.norm1(memory + attend(placed, placed, memory)[0])  # type: ignore[operator]
            memory = layer.norm2(memory + layer.feed_forward(memory))  # type: ignore[operator]
    return memory if encoder.norm is None else encoder.norm(memory)


def restated_decoder(decoder: Decoder, queries: Tensor, memory: Tensor, position: Tensor, *, pre_norm: bool) -> Tensor:
    asks = queries.expand(len(memory), -1, -1)
    state = torch.zeros_like(asks)
    for layer in decoder.layers:
        cross = as_pytorch(layer.cross_attention)  # type: ignore[arg-type]
        if layer.self_attention is not None:
            attend = as_pytorch(layer.self_attention)  # type: ignore[arg-type]
            value = layer.norm1(state) if pre_norm else state  # type: ignore[operator]
            state = state + attend(value + asks, value + asks, value)[0]
            state = state if pre_norm else layer.norm1(state)  # type: ignore[operator]
        value = layer.norm2(state) if pre_norm else state  # type: ignore[operator]
        state = state + cross(value + asks, memory + position, memory)[0]
        state = state if pre_norm else layer.norm2(state)  # type: ignore[operator]
        value = layer.norm3(state) if pre_norm else state  # type: ignore[operator]
        state = state + layer.feed_forward(value)  # type: ignore[operator]
        state = state if pre_norm else layer.norm3(state)  # type: ignore[operator]
    return decoder.norm(state)  # type: ignore[no-any-return]


@pytest.mark.parametrize("pre_norm", [False, True])
class TestLayers:
    def test_the_encoder_is_detrs(self, pre_norm: bool) -> None:
        encoder = Encoder(DIM, layers=2, heads=HEADS, ffn_dim=24, dropout=0.1, pre_norm=pre_norm)
        filled(encoder)
        memory, position = torch.randn(3, 6, DIM), torch.randn(1, 6, DIM)
        expected = restated_encoder(encoder, memory, position, pre_norm=pre_norm)
        torch.testing.assert_close(encoder(memory, position), expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("attends", [[False, False], [True, False], [False, True], [True, True]])
    def test_the_decoder_is_detrs(self, pre_norm: bool, attends: list[bool]) -> None:
        decoder = Decoder(DIM, self_attention=attends, heads=HEADS, ffn_dim=24, dropout=0.1, pre_norm=pre_norm)
        filled(decoder)
        queries, memory, position = torch.randn(5, DIM), torch.randn(3, 6, DIM), torch.randn(1, 6, DIM)
        states, weights = decoder(queries, memory, position, need_weights=True)
        expected = restated_decoder(decoder, queries, memory, position, pre_norm=pre_norm)
        torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-5)
        assert [layer.shape for layer in weights] == [(3, HEADS, 5, 6)] * 2


def test_dropout_differs_between_equal_images() -> None:
    for attends in (False, True):
        decoder = Decoder(DIM, self_attention=[attends], heads=HEADS, ffn_dim=8, dropout=0.5, pre_norm=False)
        memory = torch.randn(1, 6, DIM).expand(2, -1, -1)
        states, _ = decoder(torch.randn(5, DIM), memory, torch.randn(1, 6, DIM))
        assert not torch.equal(states[0], states[1])
