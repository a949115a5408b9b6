"""Windows, alpha, bands, pages and channels of several files, each against a short definition."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.errors import ImageError
from pipeline.images.check import check_images
from pipeline.images.decoding.decode import load_forms, load_image, read_image
from pipeline.images.decoding.samples import to_channels, to_uint8, turn_upright
from pipeline.images.geometry import ImageForm, Pixels, Reading, fit_image
from tests.images.conftest import exif_orientation

WHITE = (255, 255, 255)
Array = NDArray[Any]


def saved(folder: Path, image: Image.Image, kind: str, name: str = "image", **options: Any) -> tuple[Path]:
    path = folder / name
    image.save(path, kind, **options)
    return (path,)


def tiff(folder: Path, samples: Array, name: str = "image.tif") -> tuple[Path]:
    path = folder / name
    path.write_bytes(cv2.imencode(".tiff", samples)[1].tobytes())
    return (path,)


@given(st.integers(0, 65535), st.integers(-70000, 70000), st.integers(1, 70000))
def test_a_window_is_linear_between_its_ends(value: int, low: int, width: int) -> None:
    expected = 255 * min(1.0, max(0.0, (value - low) / width))
    for dtype in (np.uint16, np.int32, np.float32, np.float64):
        pixel = to_uint8(np.full((1, 1, 1), value, dtype), (low, low + width))
        assert pixel.dtype == np.uint8
        assert abs(float(pixel[0, 0, 0]) - expected) <= 0.5001


def test_nan_is_black_and_infinities_are_the_ends() -> None:
    values = np.array([np.nan, -np.inf, np.inf, 0.5], np.float32).reshape(2, 2, 1)
    assert to_uint8(values, (0, 1)).ravel().tolist() == [0, 0, 255, 128]


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.float32, np.float64])
@pytest.mark.parametrize("bands", [1, 3])
def test_samples_without_a_range_of_their_own_need_a_window(tmp_path: Path, dtype: type, bands: int) -> None:
    samples: Array = np.arange(48).reshape(4, 4, 3)[:, :, :bands].astype(dtype)
    paths = tiff(tmp_path, samples)
    with pytest.raises(ImageError, match=r"images\.window: \[LOW, HIGH\]"):
        read_image(paths, Reading(channels=3))
    image = read_image(paths, Reading(channels=3, window=(0, 51)))
    colours = samples.repeat(3, axis=2) if bands == 1 else samples[:, :, ::-1]  # OpenCV writes BGR
    np.testing.assert_array_equal(image, colours * 5)


def test_a_window_of_sixteen_bit_png_leaves_its_alpha_alone(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(0, 4096, (5, 6, 4), np.uint16)
    samples[:, :, 3] = 65535
    path = tmp_path / "image.png"
    path.write_bytes(cv2.imencode(".png", samples)[1].tobytes())
    image = read_image((path,), Reading(channels=4, window=(0, 4095)))
    np.testing.assert_array_equal(image[:, :, :3], np.round(samples[:, :, 2::-1] * (255 / 4095)))
    assert (image[:, :, 3] == 255).all()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGBA"), ("PNG", "LA"), ("PNG", "P"), ("WEBP", "RGBA"), ("TIFF", "RGBA"), ("TIFF", "LA"), ("GIF", "RGBA")],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_laid_over_a_colour(tmp_path: Path, picture: Pixels, mode: str, kind: str, channels: int) -> None:
    alpha = Image.fromarray(
        np.where(picture[:, :, 0] > 120, 0 if mode == "P" or kind == "GIF" else 77, 255).astype(np.uint8)
    )
    image = Image.fromarray(picture)
    image.putalpha(alpha)
    image = image.convert("RGBA").quantize(16) if mode == "P" else image.convert(mode)
    options: dict[str, Any] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    paths = saved(tmp_path, image, kind, **options)
    with Image.open(paths[0]) as stored:
        full = stored.convert("RGBA")
    expected = Image.alpha_composite(Image.new("RGBA", full.size, (10, 200, 30, 255)), full).convert("RGB")
    reference = np.asarray(expected.convert({1: "L", 3: "RGB"}[channels])).reshape(37, 53, channels)
    image_over = read_image(paths, Reading(channels=channels, alpha=(10, 200, 30)))
    assert np.abs(image_over.astype(int) - reference).max() <= 2
    dropped = read_image(paths, Reading(channels=channels))
    assert np.abs(dropped.astype(int) - image_over).max() > 20


def test_an_image_without_alpha_does_not_change_with_the_colour(tmp_path: Path, picture: Pixels) -> None:
    for kind in ("PNG", "JPEG", "TIFF"):
        paths = saved(tmp_path, Image.fromarray(picture), kind)
        np.testing.assert_array_equal(
            read_image(paths, Reading(channels=3, alpha=WHITE)), read_image(paths, Reading(channels=3))
        )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_images_with_and_without_alpha_are_turned_upright(
    tmp_path: Path, picture: Pixels, orientation: int, kind: str, mode: str
) -> None:
    exif = exif_orientation(orientation)
    image = Image.fromarray(picture).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(picture[:, :, 0] // 2))
    options: dict[str, Any] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    paths = saved(tmp_path, image, kind, exif=exif, **options)
    (png,) = saved(tmp_path, image, "PNG", "reference.png", exif=exif)  # Pillow 13 muddles turned TIFFs with alpha
    with Image.open(png) as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored).convert("RGBA"))
    np.testing.assert_array_equal(read_image(paths, Reading(channels=4)), upright)
    np.testing.assert_array_equal(read_image(paths, Reading(channels=3)), upright[:, :, :3])


def test_orientations_beyond_eight_are_none(picture: Pixels) -> None:
    np.testing.assert_array_equal(turn_upright(picture, 9), picture)


def test_an_inverted_cmyk_jpeg_of_adobe_has_its_colours(tmp_path: Path, picture: Pixels) -> None:
    paths = saved(tmp_path, Image.fromarray(picture).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in paths[0].read_bytes()
    assert np.abs(read_image(paths, Reading(channels=3)).astype(float) - picture).mean() < 3


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 9), value, np.uint8)) for value in (50, 100, 200)]
    paths = saved(tmp_path, frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(paths, Reading(channels=1)), np.full((8, 9, 1), 50))


@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_grey_pages_are_channels_where_their_number_fits(tmp_path: Path, count: int) -> None:
    pages = [Image.fromarray(np.full((6, 7), 30 * number, np.uint8)) for number in range(count)]
    paths = saved(tmp_path, pages[0], "TIFF", save_all=True, append_images=pages[1:])
    image = read_image(paths, Reading(channels=count))
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, np.broadcast_to(30 * np.arange(count), (6, 7, count)))
    first = read_image(paths, Reading(channels=1))
    np.testing.assert_array_equal(first, np.zeros((6, 7, 1)))
    with pytest.raises(ImageError, match="has 1 channels"):
        read_image(paths, Reading(channels=count + 6))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("bands", [2, 4, 5, 13])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rowsperstrip": 3, "planarconfig": "separate", "byteorder": ">"},
        {"rowsperstrip": 7, "compression": "lzw", "predictor": True, "bigtiff": True},
        {"tile": (16, 32), "compression": "zlib"},
        {"tile": (16, 16), "compression": "zstd", "predictor": True, "planarconfig": "separate"},
    ],
)
def test_tiffs_of_any_number_of_bands(tmp_path: Path, dtype: type, bands: int, options: dict[str, Any]) -> None:
    samples: Array = np.random.default_rng(0).integers(0, 256, (40, 35, bands)).astype(dtype)
    stored = np.moveaxis(samples, 2, 0) if options.get("planarconfig") == "separate" else samples
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, stored, **{"photometric": "minisblack", "planarconfig": "contig", **options})
    window = None if dtype == np.uint8 else (0, 255)
    np.testing.assert_array_equal(read_image((path,), Reading(channels=bands, window=window)), samples)
    data = path.read_bytes()
    for length in (9, len(data) // 2, len(data) - 20):
        path.write_bytes(data[:length])
        with pytest.raises(ImageError):
            read_image((path,), Reading(channels=bands, window=window))


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "RGBA"])
def test_colour_models_of_tiffs_agree_with_pillow(
    tmp_path: Path, picture: Pixels, mode: str, compression: str | None
) -> None:
    image = Image.fromarray(picture)
    image.putalpha(Image.fromarray(picture[:, :, 1]))
    inks = [Image.fromarray(plane // 2) for plane in (*picture.transpose(2, 0, 1), picture[::-1, :, 0])]
    kinds = {"P": image.quantize(50), "CMYK": Image.merge("CMYK", inks)}
    paths = saved(tmp_path, kinds.get(mode) or image.convert(mode), "TIFF", compression=compression)
    with Image.open(paths[0]) as stored:
        reference = np.asarray(stored.convert("RGBA"))
    assert np.abs(read_image(paths, Reading(channels=4)).astype(int) - reference).max() <= (1 if mode == "CMYK" else 0)


def test_a_tiff_may_count_from_white(tmp_path: Path, picture: Pixels) -> None:
    grey, path = picture[:, :, 0], tmp_path / "image.tif"
    cases: list[tuple[Array, Array]] = [
        (grey, 255 - grey),
        (257 * grey.astype(np.uint16), 255 - grey),
        (grey > 99, 255 * (grey <= 99)),
    ]
    for stored, expected in cases:
        tifffile.imwrite(path, stored, photometric="miniswhite")
        np.testing.assert_array_equal(read_image((path,), Reading(channels=1))[:, :, 0], expected)

    tifffile.imwrite(path, grey)
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.tags["PhotometricInterpretation"].offset
    data = path.read_bytes()
    path.write_bytes(data[:place] + b"\xff\xff" + data[place + 2 :])  # without this tag it counts from black
    np.testing.assert_array_equal(read_image((path,), Reading(channels=1))[:, :, 0], grey)


def test_premultiplied_alpha_of_a_tiff_is_divided_out(tmp_path: Path, picture: Pixels) -> None:
    alpha = np.where(picture[:, :, :1] > 120, 128, 0)
    path = tmp_path / "image.tif"
    stored = np.concatenate([picture * alpha // 255, alpha], axis=2).astype(np.uint8)
    tifffile.imwrite(path, stored, photometric="rgb", extrasamples=["assocalpha"])
    image = read_image((path,), Reading(channels=4))
    np.testing.assert_array_equal(image[:, :, 3:], alpha)
    assert np.abs(np.where(alpha > 0, image[:, :, :3].astype(int) - picture, 0)).max() <= 2


def odd_bits(path: Path, grey: Pixels) -> None:
    tifffile.imwrite(path, grey.astype(np.uint16), bitspersample=12)


def mixed_bits(path: Path, grey: Pixels) -> None:
    tifffile.imwrite(path, np.dstack([grey] * 3), photometric="rgb")
    overwrite(path, "BitsPerSample", (5, 6, 5))


def missing_strip(path: Path, grey: Pixels) -> None:
    tifffile.imwrite(path, grey, rowsperstrip=10)
    overwrite(path, "StripByteCounts", (530, 0, 530, 371))


def damaged_strip(path: Path, grey: Pixels) -> None:
    tifffile.imwrite(path, grey, compression="zlib")
    data = bytearray(path.read_bytes())
    data[-60:-30] = bytes(30)
    path.write_bytes(data)


def cut_jpeg(path: Path, grey: Pixels) -> None:
    tifffile.imwrite(path, grey, compression="jpeg", rowsperstrip=100)
    with tifffile.TiffFile(path) as file:
        start, size = file.pages.first.dataoffsets[0], file.pages.first.databytecounts[0]
    path.write_bytes(path.read_bytes()[: start + size // 2])


def short_jpeg(path: Path, grey: Pixels) -> None:
    tifffile.imwrite(path, grey, compression="jpeg", rowsperstrip=100)
    overwrite(path, "StripByteCounts", path.stat().st_size // 2)


def no_colours(path: Path, grey: Pixels) -> None:
    tifffile.imwrite(path, np.dstack([grey] * 3), photometric="cielab")


def too_large(path: Path, grey: Pixels) -> None:
    tifffile.imwrite(path, grey, compression="zlib")
    overwrite(path, "ImageWidth", 20_000)
    overwrite(path, "ImageLength", 10_001)


def overwrite(path: Path, tag: str, value: Any) -> None:
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags[tag].overwrite(value)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (odd_bits, "samples of 12 bits"),
        (mixed_bits, r"several sample types: \(5, 6, 5\)"),
        (missing_strip, "without some of its strips"),
        (damaged_strip, "(?i)zlib|deflate"),
        (cut_jpeg, "truncated"),
        (short_jpeg, "without the end of its JPEG"),
        (no_colours, "CIELAB"),
        (too_large, "at most 200,000,000 pixels"),
    ],
)
def test_a_tiff_that_cannot_be_read_whole_is_refused(
    tmp_path: Path, picture: Pixels, write: Callable[[Path, Pixels], None], words: str
) -> None:
    path = tmp_path / "image.tif"
    write(path, picture[:, :, 0])
    with pytest.raises(ImageError, match=words):
        read_image((path,), Reading(channels=3))


def test_each_file_of_an_image_is_one_grey_channel(tmp_path: Path, picture: Pixels) -> None:
    names = ["red.png", "green.png", "blue.jpg", "yellow.png"]
    planes = [picture[:, :, 0], picture[:, :, 1], picture[:, :, 2], picture[:, :, 0] // 2]
    paths = tuple(tmp_path / name for name in names)
    for path, plane in zip(paths, planes, strict=True):
        Image.fromarray(plane).save(path, quality=100)
    form = ImageForm((37, 53), "stretch", 4)
    image = load_image(paths, form)
    assert np.abs(image.astype(int) - np.stack(planes, axis=2)).max() <= 2
    np.testing.assert_array_equal(load_image(paths[::-1], form), image[:, :, ::-1])
    assert check_images([paths], form, threads=1) == [None]
    Image.fromarray(planes[3][:20]).save(paths[3])
    with pytest.raises(ImageError, match="another size than"):
        load_image(paths, form)
    assert "another size" in str(check_images([paths], form, threads=1))
    with pytest.raises(ImageError, match=r"has 4 files"):
        read_image(paths, Reading(channels=3))


@pytest.mark.parametrize("channels", [2, 5, 9])
def test_many_channels_are_fitted_as_each_alone(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, channels), np.uint8)
    for size in ((7, 9), (40, 45), (40, 10)):
        alone = [fit_image(image[:, :, [channel]], size=size, fit="pad") for channel in range(channels)]
        np.testing.assert_array_equal(fit_image(image, size=size, fit="pad"), np.concatenate(alone, axis=2))


@pytest.mark.parametrize(("bands", "channels"), [(1, 2), (3, 2), (4, 5), (5, 3), (5, 4)])
def test_bands_that_cannot_become_these_channels_are_refused(bands: int, channels: int) -> None:
    with pytest.raises(ValueError, match=f"expected {channels} channels but got {bands}"):
        to_channels(np.zeros((2, 2, bands), np.uint8), channels, None)


def smooth_jpeg(folder: Path, size: tuple[int, int], **options: Any) -> tuple[Path]:
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    large = cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)
    return saved(folder, Image.fromarray(np.asarray(large, np.uint8)), "JPEG", quality=95, **options)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("at_least", "scale"), [((75, 100), 8), ((76, 100), 4), ((150, 201), 2), ((301, 10), 1), ((601, 801), 1)]
)
def test_a_jpeg_is_decoded_no_smaller_than_at_least(
    tmp_path: Path, at_least: tuple[int, int], scale: int, channels: int, orientation: int
) -> None:
    stored = (800, 600) if orientation == 6 else (600, 800)
    paths = smooth_jpeg(tmp_path, stored, exif=exif_orientation(orientation))
    image = read_image(paths, Reading(channels=channels), at_least=at_least)
    assert image.shape == (600 // scale, 800 // scale, channels)
    whole = fit_image(read_image(paths, Reading(channels=channels)), size=image.shape[:2], fit="stretch")
    assert np.abs(image.astype(float) - whole).mean() < 2


def test_a_form_of_a_large_jpeg_is_near_the_whole_one_fitted(tmp_path: Path) -> None:
    paths = smooth_jpeg(tmp_path, (600, 800))
    forms = (ImageForm((64, 96), "crop", 3), ImageForm((50, 50), "stretch", 3), ImageForm((64, 64), "pad", 1))
    for form, image in zip(forms, load_forms(paths, forms), strict=True):
        whole = fit_image(read_image(paths, Reading(channels=form.channels)), size=form.size, fit=form.fit)
        assert image.shape == form.shape
        assert np.abs(image.astype(float) - whole).mean() < 2


def test_the_extension_of_a_file_is_ignored(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(stream, "PNG")
    path = tmp_path / "wrong.jpg"
    path.write_bytes(stream.getvalue())
    np.testing.assert_array_equal(read_image((path,), Reading(channels=1))[:, :, 0], np.arange(12).reshape(3, 4))
