from __future__ import annotations

import math

import pytest
import torch

from pipeline.model.position import SinePosition, sine_position_encoding


@pytest.mark.parametrize(("height", "width", "channels"), [(7, 7, 512), (3, 5, 8), (1, 20, 64)])
def test_equals_its_definition_at_any_size(height: int, width: int, channels: int) -> None:
    """DETR's PositionEmbeddingSine, position by position, in float64."""
    encoding = sine_position_encoding(height, width, channels)
    assert encoding.shape == (1, channels, height, width)
    half = channels // 2
    for channel in range(channels):
        by_row = channel < half
        i = (channel % half) // 2
        wave = math.cos if channel % 2 else math.sin
        length = height if by_row else width
        for place in {0, length // 2, length - 1}:
            angle = (place + 1) / (length + 1e-6) * 2 * math.pi / 10_000 ** (2 * i / half)
            row, column = (place, width // 2) if by_row else (height // 2, place)
            assert encoding[0, channel, row, column].item() == pytest.approx(wave(angle), abs=1e-6)


def test_refuses_channels_that_do_not_pair_up() -> None:
    with pytest.raises(ValueError, match="divisible by 4"):
        sine_position_encoding(2, 2, 6)


class TestSinePosition:
    def test_has_the_features_layout_and_type(self) -> None:
        features = torch.zeros(2, 8, 3, 5, dtype=torch.bfloat16)
        encoding = SinePosition()(features)
        assert encoding.shape == (1, 15, 8)
        assert encoding.dtype == torch.bfloat16
        expected = sine_position_encoding(3, 5, 8)[0, :, 1, 2].bfloat16()
        torch.testing.assert_close(encoding[0, 1 * 5 + 2], expected)

    def test_made_in_inference_mode_it_still_serves_training(self) -> None:
        position, features = SinePosition(), torch.zeros(1, 8, 2, 2)
        with torch.inference_mode():
            position(features)
        weight = torch.ones(8, requires_grad=True)
        (position(features) * weight).sum().backward()
        assert weight.grad is not None
