from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.competition.paths import ImagePaths
from pipeline.errors import ConfigError, ImageError
from pipeline.images.cache import ImageMap, cache_file, cache_fits, open_cache
from pipeline.images.decode import load_image
from pipeline.images.fit import ImageForm

FORM = ImageForm((16, 16), "stretch", 3)
Write = Callable[[int], list[ImagePaths]]


def opened(paths: Sequence[ImagePaths], folder: Path, form: ImageForm = FORM) -> tuple[ImageMap, list[int]]:
    """The cache, and the progress that its building reported."""
    built: list[int] = []
    return open_cache(paths, form, folder=folder, threads=2, progress=built.append), built


@pytest.mark.parametrize("form", [FORM, ImageForm((30, 10), "pad", 1), ImageForm((8, 24), "crop", 4)])
def test_row_i_is_image_i_as_it_would_be_decoded(write_images: Write, tmp_path: Path, form: ImageForm) -> None:
    paths = write_images(70)  # more than one chunk
    cached, built = opened(paths, tmp_path / "cache", form)
    np.testing.assert_array_equal(cached, np.stack([load_image(path, form) for path in paths]))
    assert isinstance(cached, np.memmap)
    assert not cached.flags.writeable
    assert built == list(range(1, 71))


def test_a_second_call_reuses_the_file(write_images: Write, tmp_path: Path) -> None:
    paths = write_images(3)
    first, _ = opened(paths, tmp_path / "cache")
    again, built = opened(paths, tmp_path / "cache")
    assert built == []
    assert again.filename == first.filename


def test_other_images_orders_and_forms_have_their_own_file(write_images: Write, tmp_path: Path) -> None:
    paths = write_images(3)
    choices = [
        (paths, FORM),
        (paths[:2], FORM),
        (paths[::-1], FORM),
        (paths, FORM._replace(size=(16, 17))),
        (paths, FORM._replace(fit="pad")),
        (paths, FORM._replace(channels=1)),
        (paths, FORM._replace(window=(0.0, 99.0))),
        (paths, FORM._replace(alpha=(0, 0, 0))),
    ]
    assert len({cache_file(some, form, folder=tmp_path) for some, form in choices}) == len(choices)


@pytest.mark.parametrize(("longer", "later"), [(0, 1), (1, 0)])
def test_a_changed_size_or_time_of_an_image_is_noticed(tmp_path: Path, longer: int, later: int) -> None:
    files = [tmp_path / f"{number}.bmp" for number in range(3)]  # BMP: other pixels, same length
    paths = [(file,) for file in files]
    for number, path in enumerate(files):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    before, stamp = np.array(opened(paths, tmp_path / "cache")[0]), files[1].stat().st_mtime_ns
    Image.new("RGB", (8, 8), (99, 0, 0)).save(files[1])
    files[1].write_bytes(files[1].read_bytes() + b"\0" * longer)
    os.utime(files[1], ns=(stamp, stamp + later))
    after, built = opened(paths, tmp_path / "cache")
    assert built
    assert (after[1, :, :, 0] == 99).all()
    np.testing.assert_array_equal(after[::2], before[::2])


def test_all_bad_images_are_told_at_once_and_leave_nothing_behind(write_images: Write, tmp_path: Path) -> None:
    paths = write_images(5)
    (first,), (second,) = paths[1], paths[3]
    good = first.read_bytes()
    first.write_bytes(good[:100])
    second.write_bytes(b"")
    with pytest.raises(ImageError, match="2 of 5 images cannot be read") as caught:
        opened(paths, tmp_path / "cache")
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".lock"}
    first.write_bytes(good)
    second.write_bytes(good)
    assert len(opened(paths, tmp_path / "cache")[0]) == 5


def test_missing_images_are_told_at_once(write_images: Write, tmp_path: Path) -> None:
    paths = [(tmp_path / "one.png",), *write_images(1), (tmp_path / "two.png",)]
    with pytest.raises(ImageError, match=r"2 of 3 images cannot be read(.|\n)*one.png(.|\n)*two.png"):
        opened(paths, tmp_path / "cache")


def test_the_file_appears_only_when_it_is_complete(write_images: Write, tmp_path: Path) -> None:
    paths, folder = write_images(3), tmp_path / "cache"
    file = cache_file(paths, FORM, folder=folder)
    there: list[bool] = []
    open_cache(paths, FORM, folder=folder, threads=1, progress=lambda _: there.append(file.exists()))
    assert there == [False, False, False]
    assert file.exists()


def test_an_interrupted_build_leaves_no_cache(write_images: Write, tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    paths, folder = write_images(3), tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        open_cache(paths, FORM, folder=folder, threads=1, progress=interrupt)
    assert {path.suffix for path in folder.iterdir()} <= {".lock"}


def test_what_a_killed_build_left_is_replaced(write_images: Write, tmp_path: Path) -> None:
    paths, folder = write_images(3), tmp_path / "cache"
    folder.mkdir()
    stale = cache_file(paths, FORM, folder=folder).with_suffix(".partial")
    stale.write_bytes(b"x" * 100_000)
    cached, _ = opened(paths, folder)
    np.testing.assert_array_equal(cached[2], load_image(paths[2], FORM))
    assert not stale.exists()


def test_of_several_that_ask_at_once_one_builds(write_images: Write, tmp_path: Path) -> None:
    paths = write_images(3)
    together = threading.Barrier(3)
    builders: list[int] = []

    def ask(asker: int) -> ImageMap:
        def slow(done: int) -> None:
            builders.append(asker)
            time.sleep(0.1)  # so that the others ask while this one builds

        together.wait(timeout=10)
        return open_cache(paths, FORM, folder=tmp_path / "cache", threads=1, progress=slow)

    with ThreadPoolExecutor(3) as pool:
        maps = list(pool.map(ask, range(3)))
    assert len(builders) == 3
    assert len(set(builders)) == 1
    for array in maps:
        np.testing.assert_array_equal(array, maps[0])


def test_a_full_disk_is_told_before_anything_is_decoded(write_images: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not fit on the disk"):
        opened(write_images(1), tmp_path / "cache", ImageForm((10**8, 10**8), "stretch", 3))


def test_no_images_make_no_cache(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        opened([], tmp_path)


def test_a_cache_fits_if_it_takes_its_share_of_the_free_disk(tmp_path: Path) -> None:
    absent = tmp_path / "not" / "yet" / "made"
    assert cache_fits(1, FORM, folder=absent)
    assert not cache_fits(10**15, FORM, folder=absent)
    assert not cache_fits(1, FORM, folder=absent, share=0)
