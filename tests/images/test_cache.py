from __future__ import annotations

import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.competition.paths import ImagePaths
from pipeline.errors import ConfigError, ImageError
from pipeline.events import notes_into
from pipeline.images.caching import cache_writer
from pipeline.images.caching.cache import ImageCache
from pipeline.images.caching.cache_format import CacheFormat, JpegRows
from pipeline.images.decoding.decode import load_image
from pipeline.images.geometry import ImageForm
from pipeline.images.readers import ImageSource
from tests.conftest import PROJECT
from tests.images.conftest import interrupt

FORM = ImageForm((16, 16), "stretch", 3)
LARGE = FORM._replace(size=(20, 20))
FORMATS: tuple[CacheFormat, ...] = ("raw", "jpeg")
Write = Callable[[int], list[ImagePaths]]


def opened(
    paths: Sequence[ImagePaths], folder: Path, *forms: ImageForm, kept_as: CacheFormat = "raw"
) -> tuple[tuple[ImageSource, ...], list[int]]:
    """The sources, and the progress of the build."""
    built: list[int] = []
    cache = ImageCache(paths, folder=folder)
    return cache.open(forms or [FORM], kept_as=kept_as, threads=2, progress=built.append), built


def pixels(source: ImageSource) -> NDArray[np.uint8]:
    return np.stack([source.load(row) for row in range(len(source))])


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the locks, which are empty and stay."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.mark.parametrize("form", [FORM, ImageForm((30, 10), "pad", 1), ImageForm((8, 24), "crop", 4)])
def test_row_i_is_image_i_as_it_would_be_decoded(write_images: Write, tmp_path: Path, form: ImageForm) -> None:
    paths = write_images(70)  # more than one chunk
    (source,), built = opened(paths, tmp_path / "cache", form)
    np.testing.assert_array_equal(pixels(source), np.stack([load_image(path, form) for path in paths]))
    assert source.shape == form.shape
    assert built == list(range(1, 71))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpegs_are_nearly_the_images_with_their_colours(tmp_path: Path, channels: int) -> None:
    y, x = np.mgrid[:40, :60]
    paths = [(tmp_path / f"{number}.png",) for number in range(70)]
    for number, (path,) in enumerate(paths):
        smooth = np.stack([4 * x, 6 * y, 255 - 2 * x - 3 * y + 0 * x], axis=2) // (1 + number % 3)
        Image.fromarray(smooth.astype(np.uint8)).save(path)
    form = ImageForm((40, 60), "stretch", channels)
    (source,), _ = opened(paths, tmp_path / "cache", form, kept_as="jpeg")
    assert (len(source), source.shape) == (70, form.shape)
    for row in (0, 1, 35, 69):
        kept, expected = source.load(row), load_image(paths[row], form)
        assert np.abs(kept.astype(int) - expected).max() <= 6
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).load(row), kept)
        kept[:] = 0  # the caller may change it
    raw = 70 * 40 * 60 * channels
    assert sum(map(len, contents(tmp_path / "cache").values())) < raw / 2


@pytest.mark.parametrize("kept_as", FORMATS)
def test_several_forms_are_built_from_one_decoding(
    write_images: Write, tmp_path: Path, kept_as: CacheFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, read, seen = write_images(5), Path.read_bytes, list[Path]()

    def counted(path: Path) -> bytes:
        seen.append(path)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    (large, small), _ = opened(paths, tmp_path / "cache", LARGE, FORM, kept_as=kept_as)
    assert sorted(seen) == sorted(path for (path,) in paths)
    for source, form in ((large, LARGE), (small, FORM)):
        (alone,), _ = opened(paths, tmp_path / "alone", form, kept_as=kept_as)
        np.testing.assert_array_equal(pixels(source), pixels(alone))
    assert contents(tmp_path / "cache") == contents(tmp_path / "alone")


def test_an_existing_form_is_not_built_again(write_images: Write, tmp_path: Path) -> None:
    paths = write_images(3)
    opened(paths, tmp_path / "cache", LARGE)
    before = contents(tmp_path / "cache")
    _, built = opened(paths, tmp_path / "cache", LARGE)
    assert built == []
    _, built = opened(paths, tmp_path / "cache", FORM, LARGE)
    assert built == [1, 2, 3]
    assert before.items() < contents(tmp_path / "cache").items()


def test_the_pixels_of_a_form_do_not_depend_on_the_other_forms(tmp_path: Path) -> None:
    """An image of 100 x 100 is decoded at half its size for a form of 45 pixels, but not for one of 60."""
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    path = (tmp_path / "image.jpg",)
    Image.fromarray(noise).save(path[0], quality=95)
    forms = [FORM._replace(size=(60, 60)), FORM._replace(size=(45, 45))]
    sources, _ = opened([path], tmp_path / "cache", *forms)
    for source, form in zip(sources, forms, strict=True):
        np.testing.assert_array_equal(source.load(0), load_image(path, form))


def test_other_images_orders_forms_and_formats_have_their_own_file(write_images: Write, tmp_path: Path) -> None:
    paths = write_images(3)
    choices = [
        (paths, FORM),
        (paths[:2], FORM),
        (paths[::-1], FORM),
        ([paths[0] + paths[1], paths[2]], FORM),
        (paths, FORM._replace(size=(16, 17))),
        (paths, FORM._replace(fit="pad")),
        (paths, FORM._replace(channels=1)),
        (paths, FORM._replace(window=(0.0, 99.0))),
        (paths, FORM._replace(alpha=(0, 0, 0))),
    ]
    files = {
        ImageCache(some, folder=tmp_path).file(form, kept_as).stem for some, form in choices for kept_as in FORMATS
    }
    assert len(files) == 2 * len(choices)


@pytest.mark.parametrize(("longer", "later"), [(0, 1), (1, 0)])
def test_a_changed_size_or_time_of_an_image_is_noticed(tmp_path: Path, longer: int, later: int) -> None:
    files = [tmp_path / f"{number}.bmp" for number in range(3)]  # BMP: other pixels, same length
    paths = [(file,) for file in files]
    for number, path in enumerate(files):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    before, stamp = pixels(opened(paths, tmp_path / "cache")[0][0]), files[1].stat().st_mtime_ns
    Image.new("RGB", (8, 8), (99, 0, 0)).save(files[1])
    files[1].write_bytes(files[1].read_bytes() + b"\0" * longer)
    os.utime(files[1], ns=(stamp, stamp + later))
    (source,), built = opened(paths, tmp_path / "cache")
    after = pixels(source)
    assert built
    assert (after[1, :, :, 0] == 99).all()
    np.testing.assert_array_equal(after[::2], before[::2])


@pytest.mark.parametrize("kept_as", FORMATS)
def test_one_error_names_all_bad_images_and_no_file_is_left(
    write_images: Write, tmp_path: Path, kept_as: CacheFormat
) -> None:
    paths = write_images(5)
    (first,), (second,) = paths[1], paths[3]
    good = first.read_bytes()
    first.write_bytes(good[:100])
    second.write_bytes(b"")
    with pytest.raises(ImageError, match="2 of 5 images cannot be read") as caught:
        opened(paths, tmp_path / "cache", FORM, LARGE, kept_as=kept_as)
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)
    assert contents(tmp_path / "cache") == {}
    first.write_bytes(good)
    second.write_bytes(good)
    assert len(opened(paths, tmp_path / "cache")[0][0]) == 5


def test_one_error_names_all_missing_images(write_images: Write, tmp_path: Path) -> None:
    paths = [(tmp_path / "one.png",), *write_images(1), (tmp_path / "two.png",)]
    with pytest.raises(ImageError, match=r"2 of 3 images cannot be read(.|\n)*one.png(.|\n)*two.png"):
        opened(paths, tmp_path / "cache")


def test_the_file_appears_only_when_it_is_complete(write_images: Write, tmp_path: Path) -> None:
    cache = ImageCache(write_images(3), folder=tmp_path / "cache")
    there: list[bool] = []
    cache.open([FORM], kept_as="raw", threads=1, progress=lambda _: there.append(cache.holds([FORM], "raw")))
    assert there == [False, False, False]
    assert cache.holds([FORM], "raw")
    assert not cache.holds([FORM, LARGE], "raw")


@pytest.mark.parametrize("kept_as", FORMATS)
def test_an_interrupted_build_continues_where_it_stopped(
    write_images: Write, tmp_path: Path, kept_as: CacheFormat
) -> None:
    paths, folder, forms = write_images(80), tmp_path / "cache", (LARGE, FORM)
    interrupt(ImageCache(paths, folder=folder), *forms, kept_as=kept_as, at=70)
    assert not any(name.endswith((".npy", ".jpegs")) for name in contents(folder))
    for partial in folder.glob("*.partial"):  # a row that a kill would have cut off
        partial.write_bytes(partial.read_bytes() + b"x" * 100)
    _, built = opened(paths, folder, *forms, kept_as=kept_as)
    assert built == list(range(71, 81))
    opened(paths, tmp_path / "whole", *forms, kept_as=kept_as)
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize("kept_as", FORMATS)
@pytest.mark.parametrize("flush", [1, 2, 3])
def test_an_interruption_while_rows_are_saved_counts_none_twice(
    write_images: Write, tmp_path: Path, kept_as: CacheFormat, flush: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are flushed first, their number second; the interruption itself then saves again."""
    paths, folder, through, calls = write_images(12), tmp_path / "cache", cache_writer._flush, itertools.count(1)

    def interrupted(stream: Any) -> None:
        if next(calls) == flush:
            raise KeyboardInterrupt
        through(stream)

    with monkeypatch.context() as patched:
        patched.setattr(cache_writer, "_SAVED_EVERY", 4)
        patched.setattr(cache_writer, "_flush", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ImageCache(paths, folder=folder).open([FORM], kept_as=kept_as, threads=1, progress=None)
    assert json.loads(next(folder.glob("*.partial.json")).read_text())["rows"] <= 4 * (1 + flush // 3)
    opened(paths, folder, kept_as=kept_as)
    opened(paths, tmp_path / "whole", kept_as=kept_as)
    assert contents(folder) == contents(tmp_path / "whole")


def test_forms_that_stopped_at_different_rows_continue_there(write_images: Write, tmp_path: Path) -> None:
    paths, folder = write_images(9), tmp_path / "cache"
    interrupt(ImageCache(paths, folder=folder), LARGE, kept_as="jpeg", at=6)
    interrupt(ImageCache(paths, folder=folder), FORM, kept_as="jpeg", at=3)
    _, built = opened(paths, folder, LARGE, FORM, kept_as="jpeg")
    assert built == [4, 5, 6, 7, 8, 9]
    opened(paths, tmp_path / "whole", LARGE, FORM, kept_as="jpeg")
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("kept_as", "partial", "saved"),
    [
        ("raw", b"x" * 1000, None),
        *(("raw", b"x" * 1000, broken) for broken in ("", "[]", '{"rows": "many"}')),
        ("raw", b"x" * 1000, '{"rows": 4}'),  # more rows than the file has room for
        ("jpeg", JpegRows(5, FORM).header, '{"rows": 4}'),  # the table holds no ends yet
        ("jpeg", None, '{"rows": 4}'),
    ],
)
def test_a_partial_file_that_cannot_be_trusted_is_replaced(
    write_images: Write, tmp_path: Path, kept_as: CacheFormat, partial: bytes | None, saved: str | None
) -> None:
    paths, folder = write_images(5), tmp_path / "cache"
    file = ImageCache(paths, folder=folder).file(FORM, kept_as)
    folder.mkdir()
    if partial is not None:
        file.with_suffix(".partial").write_bytes(partial)
    if saved is not None:
        file.with_suffix(".partial.json").write_text(saved)
    _, built = opened(paths, folder, kept_as=kept_as)
    assert built == [1, 2, 3, 4, 5]
    opened(paths, tmp_path / "whole", kept_as=kept_as)
    assert contents(folder) == contents(tmp_path / "whole")


def test_built_rows_outlive_a_closed_terminal(write_images: Write, tmp_path: Path) -> None:
    def broken(done: int) -> None:
        if done == 3:
            raise BrokenPipeError

    paths, folder = write_images(5), tmp_path / "cache"
    with pytest.raises(BrokenPipeError):
        ImageCache(paths, folder=folder).open([FORM], kept_as="raw", threads=1, progress=broken)
    assert opened(paths, folder)[1] == [4, 5]


def test_of_several_threads_one_builds(write_images: Write, tmp_path: Path) -> None:
    cache = ImageCache(write_images(3), folder=tmp_path / "cache")
    together = threading.Barrier(3)
    builders: list[int] = []

    def open_both(number: int) -> ImageSource:
        def slow(done: int) -> None:
            builders.append(number)
            time.sleep(0.1)  # so that the others come while this one builds

        together.wait(timeout=10)
        forms = [FORM, LARGE] if number else [LARGE, FORM]
        return cache.open(forms, kept_as="raw", threads=1, progress=slow)[number == 0]

    with ThreadPoolExecutor(3) as pool:
        sources = list(pool.map(open_both, range(3)))
    assert len(builders) == 3
    assert len(set(builders)) == 1
    for source in sources:
        np.testing.assert_array_equal(pixels(source), pixels(sources[0]))


BUILD = """
import sys, time
from pathlib import Path
from pipeline.images.caching import cache_writer
from pipeline.images.caching.cache import ImageCache
from pipeline.images.geometry import ImageForm

cache_writer._SAVED_EVERY = 4
images, folder, seconds, kept_as = sys.argv[1:]
paths = sorted((path,) for path in Path(images).iterdir())
forms = [ImageForm((20, 20), "stretch", 3), ImageForm((16, 16), "stretch", 3)]

def slow(done):
    print(done, flush=True)
    time.sleep(float(seconds))

ImageCache(paths, folder=Path(folder)).open(forms, kept_as=kept_as, threads=1, progress=slow)
print("whole", flush=True)
"""


def start(images: Path, folder: Path, kept_as: str, *, seconds: float = 0, code: str = BUILD) -> subprocess.Popen[str]:
    """A process that builds a cache and prints the number of each row."""
    return subprocess.Popen(
        [sys.executable, "-c", code, str(images), str(folder), str(seconds), kept_as],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )


@pytest.mark.parametrize("kept_as", FORMATS)
def test_a_killed_build_is_finished_by_the_process_that_waits(
    write_images: Write, tmp_path: Path, kept_as: CacheFormat
) -> None:
    paths = sorted(write_images(12))
    images, folder = paths[0][0].parent, tmp_path / "cache"
    first = start(images, folder, kept_as, seconds=0.05)
    assert first.stdout is not None
    while int(first.stdout.readline()) < 6:
        pass
    second = start(images, folder, kept_as)
    first.kill()
    first.communicate()
    rows = second.communicate(timeout=60)[0].split()
    assert rows in ([*map(str, range(saved + 1, 13)), "whole"] for saved in (4, 8))
    opened(paths, tmp_path / "whole", LARGE, FORM, kept_as=kept_as)
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_disk_that_refuses_a_write_leaves_no_file(write_images: Write, tmp_path: Path) -> None:
    paths = write_images(12)
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
    process = start(paths[0][0].parent, tmp_path / "cache", "raw", code=limited + BUILD)
    assert "OSError" in process.communicate()[1]
    assert contents(tmp_path / "cache") == {}


@pytest.mark.parametrize("kept_as", FORMATS)
def test_smaller_images_stay_unchanged_where_the_form_is_bound(tmp_path: Path, kept_as: CacheFormat) -> None:
    form = ImageForm((20, 20), "stretch", 3, bound=True)
    sizes = {(7, 24): (7, 24), (16, 24): (16, 24), (18, 23): (20, 20), (7, 25): (20, 20), (20, 20): (20, 20)}
    paths: list[ImagePaths] = []
    for height, width in sizes:
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        paths.append((tmp_path / f"{height}-{width}.png",))
        Image.fromarray(noise).save(paths[-1][0])
    (source, fitted), _ = opened(paths, tmp_path / "cache", form, form._replace(bound=False), kept_as=kept_as)
    assert source.shape == (20, 20, 3)
    for row, (own, kept) in enumerate(sizes.items()):
        expected = load_image(paths[row], form)
        assert expected.shape == source.load(row).shape == (*kept, 3)
        assert fitted.load(row).shape == (20, 20, 3)
        if kept == own:
            np.testing.assert_array_equal(expected, np.asarray(Image.open(paths[row][0])))
        if kept_as == "raw":
            np.testing.assert_array_equal(source.load(row), expected)
        source.load(row)[:] = 0  # the caller may change it


def test_a_full_disk_is_refused_before_any_decoding(write_images: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not fit on the disk"):
        opened(write_images(1), tmp_path / "cache", ImageForm((10**8, 10**8), "stretch", 3))


def test_no_images_make_no_cache(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        opened([], tmp_path)


def test_raw_pixels_need_less_room_by_the_rows_that_exist(write_images: Write, tmp_path: Path) -> None:
    cache, row = ImageCache(write_images(3), folder=tmp_path / "cache"), 8 + 16 * 16 * 3
    assert cache.raw_bytes([FORM]) == 3 * row
    interrupt(cache, FORM, kept_as="raw", at=1)
    assert 2 * row - 200 < cache.raw_bytes([FORM]) < 2 * row
    cache.open([FORM], kept_as="raw", threads=1)
    assert cache.raw_bytes([FORM, LARGE]) == 3 * (8 + 20 * 20 * 3)
    assert cache.free_bytes() == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)


@pytest.mark.parametrize("kept_as", FORMATS)
def test_a_damaged_cache_is_noted_and_built_again(write_images: Write, tmp_path: Path, kept_as: CacheFormat) -> None:
    paths, folder = write_images(3), tmp_path / "cache"
    (source,), _ = opened(paths, folder, kept_as=kept_as)
    whole, file = pixels(source), ImageCache(paths, folder=folder).file(FORM, kept_as)
    data = file.read_bytes()
    for damaged in (data[:-5], b"", b"x" * len(data), data + b"\0"):
        file.write_bytes(damaged)
        notes: list[str] = []
        cache = ImageCache(paths, folder=folder)
        (again,) = cache.open([FORM], kept_as=kept_as, threads=1, listen=notes_into(notes))
        assert len(notes) == 1
        assert "is damaged and built again" in notes[0]
        np.testing.assert_array_equal(pixels(again), whole)
