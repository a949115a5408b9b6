from __future__ import annotations

import itertools
import json
import os
import pickle
import shutil
import signal
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
from pipeline.images.caching import cache_writer
from pipeline.images.caching.cache import ImageCache
from pipeline.images.caching.cache_format import CacheFormat, JpegPacking
from pipeline.images.caching.cache_writer import Partial
from pipeline.images.decoding.decode import load_image
from pipeline.images.geometry import ImageForm
from pipeline.images.readers import ImageSource
from tests.conftest import PROJECT

FORM = ImageForm((16, 16), "stretch", 3)
LARGE = FORM._replace(size=(20, 20))
FORMATS: tuple[CacheFormat, ...] = ("raw", "jpeg")
Write = Callable[[int], list[ImagePaths]]


def opened(
    paths: Sequence[ImagePaths], folder: Path, *forms: ImageForm, kept_as: CacheFormat = "raw"
) -> tuple[tuple[ImageSource, ...], list[int]]:
    """The sources, and the progress that building them reported."""
    built: list[int] = []
    cache = ImageCache(paths, folder=folder)
    return cache.open(forms or [FORM], kept_as=kept_as, threads=2, progress=built.append), built


def pixels(source: ImageSource) -> NDArray[np.uint8]:
    return np.stack([source.load(row) for row in range(len(source))])


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files but the locks, which are empty and stay."""
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
        kept[:] = 0  # the caller's own
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
    both = contents(tmp_path / "cache")
    assert both == contents(tmp_path / "alone")


def test_a_form_that_is_there_is_not_built_again(write_images: Write, tmp_path: Path) -> None:
    paths = write_images(3)
    opened(paths, tmp_path / "cache", LARGE)
    before = contents(tmp_path / "cache")
    _, built = opened(paths, tmp_path / "cache", LARGE)
    assert built == []
    _, built = opened(paths, tmp_path / "cache", FORM, LARGE)
    assert built == [1, 2, 3]
    assert before.items() < contents(tmp_path / "cache").items()


def test_the_pixels_of_a_form_do_not_depend_on_the_other_forms(tmp_path: Path) -> None:
    """Of 100 x 100 a form of 45 pixels is read at half size, one of 60 is not."""
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
def test_all_bad_images_are_told_at_once_and_leave_nothing_behind(
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


def test_missing_images_are_told_at_once(write_images: Write, tmp_path: Path) -> None:
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
def test_an_interrupted_build_goes_on_where_it_stopped(
    write_images: Write, tmp_path: Path, kept_as: CacheFormat
) -> None:
    def interrupt(done: int) -> None:
        if done == 70:
            raise KeyboardInterrupt

    paths, folder, forms = write_images(80), tmp_path / "cache", (LARGE, FORM)
    with pytest.raises(KeyboardInterrupt):
        ImageCache(paths, folder=folder).open(forms, kept_as=kept_as, threads=1, progress=interrupt)
    assert not any(name.endswith((".npy", ".jpegs")) for name in contents(folder))
    for partial in folder.glob("*.partial"):  # a row that a kill would have cut off
        partial.write_bytes(partial.read_bytes() + b"x" * 100)
    _, built = opened(paths, folder, *forms, kept_as=kept_as)
    assert built == list(range(71, 81))
    opened(paths, tmp_path / "whole", *forms, kept_as=kept_as)
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize("kept_as", FORMATS)
@pytest.mark.parametrize("flush", [1, 2, 3])
def test_an_interruption_while_rows_are_noted_counts_none_twice(
    write_images: Write, tmp_path: Path, kept_as: CacheFormat, flush: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are flushed, then the note that tells of them; what is left to do at the interruption notes again."""
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


def test_forms_that_stopped_at_different_rows_go_on_each_from_its_own(write_images: Write, tmp_path: Path) -> None:
    def interrupted(*forms: ImageForm, at: int) -> None:
        def interrupt(done: int) -> None:
            if done == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ImageCache(paths, folder=folder).open(forms, kept_as="jpeg", threads=1, progress=interrupt)

    paths, folder = write_images(9), tmp_path / "cache"
    interrupted(LARGE, at=6)
    interrupted(FORM, at=3)
    _, built = opened(paths, folder, LARGE, FORM, kept_as="jpeg")
    assert built == [4, 5, 6, 7, 8, 9]
    opened(paths, tmp_path / "whole", LARGE, FORM, kept_as="jpeg")
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize("note", [None, "", "[]", '{"rows": "many"}', '{"rows": 4}'])
def test_a_partial_file_that_cannot_be_trusted_is_replaced(
    write_images: Write, tmp_path: Path, note: str | None
) -> None:
    """No note, a broken one, or one that tells of more rows than there are."""
    paths, folder = write_images(5), tmp_path / "cache"
    file = ImageCache(paths, folder=folder).file(FORM, "raw")
    folder.mkdir()
    file.with_suffix(".partial").write_bytes(b"x" * 1000)
    if note is not None:
        file.with_suffix(".partial.json").write_text(note)
    (source,), built = opened(paths, folder)
    assert built == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(source.load(2), load_image(paths[2], FORM))
    assert set(contents(folder)) == {file.name}


def test_a_note_that_an_earlier_build_left_is_not_believed(write_images: Write, tmp_path: Path) -> None:
    """Nor where a kill comes right after the file was begun anew: its table holds no ends yet."""
    paths, folder = write_images(5), tmp_path / "cache"
    file = ImageCache(paths, folder=folder).file(FORM, "jpeg")
    folder.mkdir()
    packing = JpegPacking(5, FORM)
    note = file.with_suffix(".partial.json")
    note.write_text('{"rows": 4}')
    partial = Partial(file, FORM, packing).__enter__()
    partial._stream.close()
    assert partial.rows == 0
    assert not note.exists()
    file.with_suffix(".partial").write_bytes(packing.header)
    note.write_text('{"rows": 4}')
    (source,), built = opened(paths, folder, kept_as="jpeg")
    assert built == [1, 2, 3, 4, 5]
    assert source.load(3).shape == FORM.shape


def test_what_is_built_outlives_a_terminal_that_is_gone(write_images: Write, tmp_path: Path) -> None:
    def broken(done: int) -> None:
        if done == 3:
            raise BrokenPipeError

    paths, folder = write_images(5), tmp_path / "cache"
    with pytest.raises(BrokenPipeError):
        ImageCache(paths, folder=folder).open([FORM], kept_as="raw", threads=1, progress=broken)
    assert opened(paths, folder)[1] == [4, 5]


def test_of_several_that_ask_at_once_one_builds(write_images: Write, tmp_path: Path) -> None:
    cache = ImageCache(write_images(3), folder=tmp_path / "cache")
    together = threading.Barrier(3)
    builders: list[int] = []

    def ask(asker: int) -> ImageSource:
        def slow(done: int) -> None:
            builders.append(asker)
            time.sleep(0.1)  # so that the others ask while this one builds

        together.wait(timeout=10)
        forms = [FORM, LARGE] if asker else [LARGE, FORM]
        return cache.open(forms, kept_as="raw", threads=1, progress=slow)[asker == 0]

    with ThreadPoolExecutor(3) as pool:
        sources = list(pool.map(ask, range(3)))
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


def start(images: Path, folder: Path, kept_as: str, *, seconds: float) -> subprocess.Popen[str]:
    """A process of its own that builds, and tells of each row."""
    arguments = [sys.executable, "-c", BUILD, str(images), str(folder), str(seconds), kept_as]
    surroundings = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=surroundings)


@pytest.mark.parametrize("kept_as", FORMATS)
def test_a_build_killed_at_any_moment_is_finished_by_the_process_that_waits(
    write_images: Write, tmp_path: Path, kept_as: CacheFormat
) -> None:
    paths = sorted(write_images(12))
    images, folder = paths[0][0].parent, tmp_path / "cache"
    first = start(images, folder, kept_as, seconds=0.05)
    assert first.stdout is not None
    while int(first.stdout.readline()) < 6:
        pass
    second = start(images, folder, kept_as, seconds=0)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close()
    rows = second.communicate(timeout=60)[0].split()
    assert rows in ([*map(str, range(saved + 1, 13)), "whole"] for saved in (4, 8))
    opened(paths, tmp_path / "whole", LARGE, FORM, kept_as=kept_as)
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_disk_that_refuses_in_the_middle_leaves_nothing_behind(write_images: Write, tmp_path: Path) -> None:
    paths = write_images(12)
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
    arguments = [sys.executable, "-c", limited + BUILD, str(paths[0][0].parent), str(tmp_path / "cache"), "0", "raw"]
    surroundings = {**os.environ, "PYTHONPATH": str(PROJECT)}
    ended = subprocess.run(arguments, capture_output=True, text=True, env=surroundings, check=False)
    assert "OSError" in ended.stderr
    assert contents(tmp_path / "cache") == {}


@pytest.mark.parametrize("kept_as", FORMATS)
def test_smaller_images_are_kept_as_they_are_where_the_form_is_a_bound(tmp_path: Path, kept_as: CacheFormat) -> None:
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
        source.load(row)[:] = 0  # the caller's own


def test_a_full_disk_is_told_before_anything_is_decoded(write_images: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not fit on the disk"):
        opened(write_images(1), tmp_path / "cache", ImageForm((10**8, 10**8), "stretch", 3))


def test_no_images_make_no_cache(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        opened([], tmp_path)


def test_what_raw_pixels_still_need_is_less_by_what_is_there(write_images: Write, tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    cache, row = ImageCache(write_images(3), folder=tmp_path / "cache"), 8 + 16 * 16 * 3
    assert cache.raw_bytes([FORM]) == 3 * row
    with pytest.raises(KeyboardInterrupt):
        cache.open([FORM], kept_as="raw", threads=1, progress=interrupt)
    assert 2 * row - 200 < cache.raw_bytes([FORM]) < 2 * row
    cache.open([FORM], kept_as="raw", threads=1)
    assert cache.raw_bytes([FORM, LARGE]) == 3 * (8 + 20 * 20 * 3)
    assert cache.free_bytes() == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)
