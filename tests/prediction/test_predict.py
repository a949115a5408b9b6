"""Views, averages and the prediction loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import nn

from pipeline.competition.paths import ImagePaths
from pipeline.errors import ConfigError
from pipeline.images.dataset import EvalImages, eval_loader
from pipeline.images.decoding import decode
from pipeline.images.decoding.samples import Samples
from pipeline.images.geometry import ImageForm
from pipeline.model.normalize import PixelNormalizer
from pipeline.prediction.ensemble import combine_logits, sigmoid
from pipeline.prediction.predict import Ensemble, needed_forms, predict
from pipeline.prediction.tta import VIEWS, parse_views
from tests.conftest import make_wide_competition

LOGITS = arrays(np.float64, (3, 2, 4), elements=st.floats(-30, 30))


@settings(deadline=None)
@given(LOGITS)
def test_probabilities_are_averaged_as_probabilities(logits: np.ndarray) -> None:
    mean = sigmoid(logits).mean(axis=0)
    np.testing.assert_allclose(sigmoid(combine_logits(logits, average="probability")), mean, rtol=1e-9)
    np.testing.assert_allclose(combine_logits(logits, average="logit"), logits.mean(axis=0))


def test_extreme_logits_stay_finite_and_a_single_prediction_unchanged() -> None:
    logits = np.array([[1e4, -1e4, 800.0]])
    np.testing.assert_array_equal(combine_logits(logits, average="probability"), logits[0])
    both = combine_logits(np.concatenate([logits, logits]), average="probability")
    np.testing.assert_allclose(both, logits[0])


def test_each_view_moves_the_pixels_as_numpy_does() -> None:
    images = torch.arange(2 * 3 * 4 * 6, dtype=torch.uint8).view(2, 3, 4, 6)
    expected = {
        "identity": images.numpy(),
        "hflip": images.numpy()[..., ::-1],
        "vflip": images.numpy()[:, :, ::-1],
        "rot90": np.rot90(images.numpy(), 1, (2, 3)),
    }
    assert set(expected) == set(VIEWS)
    for view in parse_views(list(expected), size=(4, 6)):
        np.testing.assert_array_equal(view.apply(images).numpy(), expected[view.name])
        assert view.size == (4, 6)


def test_size_views_name_another_size() -> None:
    square, wide = parse_views(["size:48", "size:32x64"], size=(4, 6))
    assert (square.size, wide.size) == ((48, 48), (32, 64))


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["hflp"], "did you mean 'hflip'"),
        (["size:0"], "unknown view"),
        ([], "no view"),
        (["vflip"] * 2, "named twice"),
    ],
)
def test_wrong_views_are_refused(names: list[str], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        parse_views(names, size=(4, 4))


class _Bright(nn.Module):
    """A model whose logits are means of pixels: of the left half, the upper half and the whole image."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        left = images[..., : images.shape[-1] // 2].mean(dim=(1, 2, 3))
        top = images[..., : images.shape[-2] // 2, :].mean(dim=(1, 2, 3))
        return self.scale * torch.stack([left, top, images.mean(dim=(1, 2, 3))], dim=1)


@pytest.fixture
def paths(tmp_path: Path) -> list[ImagePaths]:
    make_wide_competition(tmp_path, train=5)
    return [(path,) for path in sorted((tmp_path / "train").glob("*.png"))]


def predicted(ensembles: list[Ensemble], paths: list[ImagePaths]) -> list[NDArray[np.float64]]:
    images = EvalImages(paths, forms=needed_forms(ensembles))
    loader = eval_loader(images, range(len(paths)), batch_size=2, workers=0, pin_memory=False)
    return predict(ensembles, loader, device=torch.device("cpu"), precision="fp32")


def _ensemble(views: list[str], *, scales: tuple[float, ...] = (1.0, 3.0)) -> Ensemble:
    form = ImageForm((32, 32), "stretch", 3)
    parsed = parse_views(views, size=form.size)
    return Ensemble([_Bright(scale) for scale in scales], PixelNormalizer([0.5] * 3, [0.1] * 3), parsed, form, "logit")


def test_every_image_is_decoded_once_for_all_folds_views_and_runs(
    paths: list[ImagePaths], monkeypatch: pytest.MonkeyPatch
) -> None:
    ensembles = [_ensemble(["identity", "hflip", "size:48"]), _ensemble(["vflip", "size:48x40"])]
    decoded: list[bytes] = []
    original = decode._decode

    def counting(file: decode.EncodedImage, *arguments: Any) -> Samples:
        decoded.append(file.data)
        return original(file, *arguments)

    monkeypatch.setattr(decode, "_decode", counting)
    assert [logits.shape for logits in predicted(ensembles, paths)] == [(5, 3), (5, 3)]
    assert decoded == [path.read_bytes() for (path,) in paths]


def test_the_prediction_is_the_average_over_models_and_views(paths: list[ImagePaths]) -> None:
    single = [_ensemble([view], scales=(scale,)) for view in ("identity", "hflip") for scale in (1.0, 3.0)]
    together, *alone = predicted([_ensemble(["identity", "hflip"]), *single], paths)
    assert np.abs(alone[0] - alone[2]).max() > 0.01  # the views do differ
    np.testing.assert_allclose(together, np.mean(alone, axis=0), rtol=1e-6)
