from __future__ import annotations

import io
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pipeline.errors import ImageError
from pipeline.images.check import check_images, require_images
from pipeline.images.decoding.decode import load_image, read_image
from pipeline.images.geometry import Fit, ImageForm, Pixels, Reading, fit_image
from tests.images.conftest import exif_orientation

ALL_CHANNELS = (1, 3, 4)
RGB = ImageForm((8, 8), "stretch", 3)
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def encode(picture: Pixels, mode: str = "RGB", kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def written(folder: Path, data: bytes, name: str = "image") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def read(path: Path, *, channels: int) -> Pixels:
    return read_image((path,), Reading(channels=channels))


def difference(one: Pixels, other: Pixels) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(float) - other).max())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_rgb_comes_back_exactly_in_all_channels(tmp_path: Path, picture: Pixels, kind: str) -> None:
    path = written(tmp_path, encode(picture, kind=kind))
    opaque = np.full((*picture.shape[:2], 1), 255, np.uint8)
    np.testing.assert_array_equal(read(path, channels=3), picture)
    np.testing.assert_array_equal(read(path, channels=4), np.concatenate([picture, opaque], axis=2))
    # libpng rounds the luma down
    np.testing.assert_allclose(read(path, channels=1)[:, :, 0], picture @ LUMA, atol=1.01)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("channels", ALL_CHANNELS)
def test_every_png_mode_agrees_with_pillow(tmp_path: Path, picture: Pixels, mode: str, channels: int) -> None:
    data = encode(picture, mode)
    image = read(written(tmp_path, data), channels=channels)
    reference = Image.open(io.BytesIO(data)).convert("RGB").convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    assert image.flags.c_contiguous
    assert image.dtype == np.uint8
    assert difference(image, np.asarray(reference).reshape(image.shape)) <= (1 if channels == 1 else 0)


@pytest.mark.parametrize("channels", ALL_CHANNELS)
def test_alpha_is_kept_for_four_channels_and_dropped_for_less(tmp_path: Path, picture: Pixels, channels: int) -> None:
    alpha = picture[:, :, :1] // 2
    data = io.BytesIO()
    Image.fromarray(np.concatenate([picture, alpha], axis=2)).save(data, "PNG")
    image = read(written(tmp_path, data.getvalue()), channels=channels)
    opaque = read(written(tmp_path, encode(picture)), channels=channels)
    if channels == 4:
        opaque[:, :, 3:] = alpha
    np.testing.assert_array_equal(image, opaque)


@pytest.mark.parametrize("stored", [1, 3, 4])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_samples_are_scaled_over_their_full_range(tmp_path: Path, stored: int, channels: int) -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (16, 16, stored), np.uint16)
    samples[0, :4] = np.array([0, 128, 129, 65535])[:, None]  # 128 / 257 rounds to 0, 129 / 257 to 1
    data = cv2.imencode(".png", samples)[1].tobytes()
    image = read(written(tmp_path, data), channels=channels)
    expected = np.round(samples / 257)
    expected = expected.repeat(3, axis=2) if stored == 1 else expected[:, :, [2, 1, 0, 3][:stored]]
    shared = min(expected.shape[2], channels)
    np.testing.assert_array_equal(image[:, :, :shared], expected[:, :, :shared])
    assert stored == 4 or channels == 3 or (image[:, :, 3] == 255).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("channels", ALL_CHANNELS)
def test_jpegs_of_one_three_and_four_components(tmp_path: Path, picture: Pixels, mode: str, channels: int) -> None:
    image = read(written(tmp_path, encode(picture, mode, "JPEG", quality=95)), channels=channels)
    colours = np.asarray(Image.fromarray(picture).convert(mode if mode == "L" else "RGB").convert("RGB"))
    if channels == 1:
        assert np.abs(image[:, :, 0] - colours @ LUMA).mean() < 3
    else:
        assert np.abs(image[:, :, :3].astype(float) - colours).mean() < 3
    assert channels != 4 or (image[:, :, 3] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", ALL_CHANNELS)
def test_exif_orientation_is_applied(tmp_path: Path, picture: Pixels, orientation: int, channels: int) -> None:
    data = encode(picture, kind="JPEG", quality=95, exif=exif_orientation(orientation))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    reference = np.asarray(upright.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]))
    image = read(written(tmp_path, data), channels=channels)
    assert difference(image, reference.reshape(*reference.shape[:2], channels)) <= 4


def test_a_path_may_hold_any_characters(tmp_path: Path, picture: Pixels) -> None:
    path = written(tmp_path, encode(picture), "бild 画像.png")
    np.testing.assert_array_equal(read(path, channels=3), picture)
    assert check_images([(path,)], RGB, threads=1) == [None]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@settings(deadline=None, max_examples=40)
@given(share=st.floats(0, 0.999))
def test_no_prefix_of_a_file_passes_for_an_image(
    tmp_path_factory: pytest.TempPathFactory, kind: str, share: float
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(noise, kind=kind)[:-12]  # without the end marker, which a PNG can be decoded without
    path = written(tmp_path_factory.mktemp("prefix"), data[: round(share * len(data))])
    with pytest.raises(ImageError, match=r"truncated|empty|not an image") as caught:
        read(path, channels=3)
    assert str(path) in caught.value.problem
    assert check_images([(path,)], RGB, threads=1) == [caught.value.problem]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_half_a_file_is_refused(tmp_path: Path, picture: Pixels, kind: str) -> None:
    data = encode(picture, kind=kind)
    with pytest.raises(ImageError):
        read(written(tmp_path, data[: len(data) // 2]), channels=3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_bytes_after_the_end_of_an_image_do_no_harm(tmp_path: Path, picture: Pixels, kind: str) -> None:
    data = encode(picture, kind=kind)
    clean, padded = written(tmp_path, data, "clean"), written(tmp_path, data + b"\0" * 50, "padded")
    np.testing.assert_array_equal(read(padded, channels=3), read(clean, channels=3))
    assert check_images([(clean,), (padded,)], RGB, threads=2) == [None, None]


def test_each_kind_of_bad_file_is_named_with_its_problem(tmp_path: Path) -> None:
    floats = cv2.imencode(".tiff", np.ones((4, 4, 3), np.float32))[1].tobytes()
    (tmp_path / "folder").mkdir()
    cases = {
        tmp_path / "missing": "does not exist",
        tmp_path / "folder": "cannot be opened",
        written(tmp_path, b"", "empty"): "is empty",
        written(tmp_path, b"<html>404</html>", "page"): "not an image",
        written(tmp_path, floats, "floats"): "has float32 samples",
    }
    for path, words in cases.items():
        with pytest.raises(ImageError, match=words) as caught:
            read(path, channels=3)
        assert str(path) in caught.value.problem
    assert all(
        line is not None and words in line
        for line, words in zip(check_images([(path,) for path in cases], RGB, threads=2), cases.values(), strict=True)
    )


def test_bad_images_are_listed_in_order_and_progress_counts_all(tmp_path: Path, picture: Pixels) -> None:
    good = written(tmp_path, encode(picture, kind="JPEG"), "good.jpg")
    cut = written(tmp_path, encode(picture, kind="JPEG")[:-2], "cut.jpg")
    done: list[int] = []
    problems = check_images([(cut,), (good,), (tmp_path / "missing",), (good,)], RGB, threads=2, progress=done.append)
    assert problems == [f"image {cut} is truncated", None, f"image {tmp_path / 'missing'} does not exist", None]
    assert done == [1, 2, 3, 4]


def test_the_error_names_the_first_bad_images_and_counts_the_rest(tmp_path: Path, picture: Pixels) -> None:
    good = written(tmp_path, encode(picture), "good.png")
    require_images([(good,)], RGB, threads=1)
    bad = [(tmp_path / f"missing{number}",) for number in range(7)]
    with pytest.raises(ImageError, match="7 of 8 images cannot be read") as caught:
        require_images([(good,), *bad], RGB, threads=2)
    assert "missing0" in str(caught.value)
    assert "and 2 more" in str(caught.value)


def test_an_image_of_the_right_size_is_left_as_it_is(picture: Pixels) -> None:
    for fit in get_args(Fit):
        np.testing.assert_array_equal(fit_image(picture, size=(37, 53), fit=fit), picture)


def test_shrinking_averages_areas() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    means = image.reshape(8, 5, 12, 5, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(fit_image(image, size=(8, 12), fit="stretch"), means, atol=0.51)


def test_an_axis_that_shrinks_is_averaged_even_where_the_other_is_enlarged() -> None:
    stripes = np.zeros((2, 400, 1), np.uint8)
    stripes[:, ::4] = 255
    np.testing.assert_allclose(fit_image(stripes, size=(8, 4), fit="stretch"), 255 / 4, atol=0.51)


@pytest.mark.parametrize(("length", "linear"), [(11, True), (8, True), (7, False)])
def test_shrinking_by_a_factor_of_up_to_one_and_a_half_is_linear(length: int, linear: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 12, 1), np.uint8)
    row = fit_image(noise, size=(1, length), fit="stretch")[0, :, 0].astype(int)
    places = (np.arange(length) + 0.5) * 12 / length - 0.5
    off = np.abs(row - np.interp(places, np.arange(12), noise[0, :, 0])).max()
    assert (off <= 1) == linear


def test_enlarging_is_linear() -> None:
    image = np.array([[[0], [100]]], np.uint8)
    row = fit_image(image, size=(1, 8), fit="stretch")[0, :, 0]
    np.testing.assert_allclose(row, np.interp(np.arange(8), [1.5, 5.5], [0, 100]), atol=1)


def test_crop_keeps_the_centre() -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 200
    assert (fit_image(image, size=(10, 10), fit="crop") == 200).all()
    assert (fit_image(image.transpose(1, 0, 2), size=(5, 5), fit="crop") == 200).all()


def test_pad_adds_even_borders_of_zeros() -> None:
    image = np.full((10, 5, 1), 200, np.uint8)
    padded = fit_image(image, size=(20, 15), fit="pad")[:, :, 0]
    assert (padded[:, 2:12] == 200).all()
    assert not padded[:, :2].any()
    assert not padded[:, 12:].any()


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60), st.sampled_from(ALL_CHANNELS)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from(get_args(Fit)),
)
def test_any_image_fits_any_size(shape: tuple[int, int, int], size: tuple[int, int], fit: Fit) -> None:
    fitted = fit_image(np.full(shape, 77, np.uint8), size=size, fit=fit)
    assert fitted.shape == (*size, shape[2])
    assert fitted.dtype == np.uint8
    assert fitted.flags.c_contiguous
    assert set(np.unique(fitted)) <= ({0, 77} if fit == "pad" else {77})
    if fit == "pad":  # the picture touches one pair of sides, and lies in the middle of the other
        rows, columns = np.flatnonzero(fitted[:, :, 0].any(axis=1)), np.flatnonzero(fitted[:, :, 0].any(axis=0))
        assert len(rows) == size[0] or len(columns) == size[1]
        assert size[0] - 1 - rows[-1] - rows[0] in (0, 1)
        assert size[1] - 1 - columns[-1] - columns[0] in (0, 1)


def test_an_unknown_fit_is_refused(picture: Pixels) -> None:
    with pytest.raises(ValueError, match="expected fit to be one of"):
        fit_image(picture, size=(8, 8), fit="squash")  # type: ignore[arg-type]


def test_load_image_reads_and_fits(tmp_path: Path, picture: Pixels) -> None:
    form = ImageForm((12, 20), "pad", 4)
    path = written(tmp_path, encode(picture))
    expected = fit_image(read(path, channels=4), size=(12, 20), fit="pad")
    np.testing.assert_array_equal(load_image((path,), form), expected)
    assert form.shape == expected.shape
