"""Mixing: shares that add up, boxes of the right area, unknown cells, the same draw for the same seed."""

from __future__ import annotations

import pytest
import torch

from pipeline.training.mixing import BatchMixer, Mix

IMAGES = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, 8, 10).contiguous()
TARGETS = torch.eye(6)


@pytest.mark.parametrize("seed", range(20))
def test_mixup_blends_pixels_and_targets_in_one_share(seed: int) -> None:
    mix = BatchMixer(mixup=0.4, cutmix=0.0, probability=1.0).draw(IMAGES, seed=seed, position=0)
    assert mix.partners is not None
    assert 0 <= mix.share <= 1
    targets = mix.targets(TARGETS)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(6))
    # image n is n everywhere, so its blend is the mean of n and its partner, by the shares of its targets
    expected = (targets * torch.arange(6.0)).sum(dim=1)
    torch.testing.assert_close(mix.images(IMAGES)[:, 0, 0, 0], expected)
    assert mix.images(IMAGES).shape == IMAGES.shape


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_targets_are_the_share_of_pixels(seed: int) -> None:
    mix = BatchMixer(mixup=0.0, cutmix=1.0, probability=1.0).draw(IMAGES, seed=seed, position=0)
    pasted, targets = mix.images(IMAGES), mix.targets(TARGETS)
    for row in range(6):
        shares = torch.stack([(pasted[row, 0] == other).float().mean() for other in range(6)])
        torch.testing.assert_close(targets[row], shares)
    assert set(pasted.flatten().tolist()) <= set(range(6))


def test_a_label_unknown_in_one_of_two_images_is_unknown_in_their_mix() -> None:
    targets = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])
    mixed = Mix(torch.tensor([1, 0]), 0.25).targets(targets)
    assert mixed[:, 0].tolist() == [0.25, 0.75]
    assert mixed[:, 1].isnan().all()


def test_the_draw_is_a_function_of_seed_and_position() -> None:
    mixer = BatchMixer(mixup=1.0, cutmix=1.0, probability=1.0)
    first, again, later = (mixer.draw(IMAGES, seed=3, position=position) for position in (0, 0, 1))
    assert first.share == again.share != later.share
    kinds = {mixer.draw(IMAGES, seed=seed, position=0).box is None for seed in range(20)}
    assert kinds == {True, False}


@pytest.mark.parametrize(("alpha", "probability"), [(0.0, 1.0), (1.0, 0.0)])
def test_switched_off_it_changes_nothing(alpha: float, probability: float) -> None:
    mix = BatchMixer(mixup=alpha, cutmix=alpha, probability=probability).draw(IMAGES, seed=0, position=0)
    assert mix.images(IMAGES) is IMAGES
    assert mix.targets(TARGETS) is TARGETS
