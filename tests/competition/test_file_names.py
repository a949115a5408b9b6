"""Names of files as systems and people leave them: Unicode forms, blanks, hidden files, paths of another machine."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest

from pipeline.competition.folder_ids import ids_in_folders
from pipeline.competition.guess.files import image_files
from pipeline.competition.paths import image_paths
from pipeline.config import CompetitionConfig
from tests.competition.labels.competition import read

HIDDEN = (
    "._a.jpg",
    "__MACOSX/a.jpg",
    "__MACOSX/._a.jpg",
    ".ipynb_checkpoints/a-checkpoint.jpg",
    ".trash/b.jpg",
    ".c.jpg",
)


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def _found(root: Path, cells: list[str], **images: object) -> list[str]:
    competition = CompetitionConfig.model_validate({"root": str(root), "images": images})
    frame = pd.DataFrame({"id": cells, "file": cells}, dtype=str)
    paths = image_paths(competition, frame, root / "train.csv", test=False)
    return [path.relative_to(root).as_posix() if path.exists() else "" for (path,) in paths]


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_files_are_never_images(tmp_path: Path, name: str) -> None:
    _touch(tmp_path, "a.jpg", "sub/d.png", name)
    assert ids_in_folders([tmp_path], "{id}", with_extension=False) == ("a",)
    assert ids_in_folders([tmp_path], "{id}", with_extension=True) == ("a.jpg",)
    assert [str(file) for file in image_files(tmp_path, tmp_path)] == ["a.jpg", "sub/d.png"]
    assert _found(tmp_path, ["._a", ".c", "._a.png"], template="{id}.png") == ["", "", ""]


def test_a_hidden_file_is_no_class_and_no_table_either(tmp_path: Path) -> None:
    files = {"train.csv": "id\n1\n", "lists/cat.txt": "1\n", "lists/._cat.txt": "\u0005\u0016\u0007"}
    assert read(tmp_path, {"format": "per_class", "files": "lists/{label}.txt"}, files).labels == ("cat",)


def test_dot_folders_above_the_competition_do_not_matter(tmp_path: Path) -> None:
    root = _touch(tmp_path / ".data/mine", "a.jpg")
    assert ids_in_folders([root], "{id}", with_extension=False) == ("a",)
    assert [str(file) for file in image_files(root, root)] == ["a.jpg"]


@pytest.mark.parametrize("name", ["고양이_001", "café", "Ås"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_found_in_every_unicode_form(tmp_path: Path, name: str, form: Literal["NFC", "NFD"]) -> None:
    other: Literal["NFC", "NFD"] = "NFD" if form == "NFC" else "NFC"
    on_disk, cell = unicodedata.normalize(other, name), unicodedata.normalize(form, name)
    _touch(tmp_path, f"{on_disk}/{on_disk}.png")
    assert _found(tmp_path, [f"{cell}/{cell}.png", f"{cell}/{cell}"], column="file") == [f"{on_disk}/{on_disk}.png"] * 2
    assert _found(tmp_path, [cell], template=f"{cell}/{{id}}.jpg") == [f"{on_disk}/{on_disk}.png"]
    assert ids_in_folders([tmp_path / on_disk], "{id}.png", with_extension=False) == (
        unicodedata.normalize("NFC", name),
    )


@pytest.mark.parametrize("name", [" a.jpg", "a.jpg ", "a .jpg", " a.jpg "])
def test_blanks_around_names_do_not_matter(tmp_path: Path, name: str) -> None:
    _touch(tmp_path, name)
    assert _found(tmp_path, ["a.jpg", " a.jpg ", "a"], column="file") == [name] * 3


@pytest.mark.parametrize(
    "start", ["/home/eve/kaggle/", "C:\\Users\\eve\\data\\", "../input/eyes/", "/kaggle/input/a b/", "D:/x/"]
)
def test_paths_of_another_machine_lead_to_their_longest_tail(tmp_path: Path, start: str) -> None:
    _touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "1.jpg")
    cells = [f"{start}train/a/1.jpg", f"{start}train/b/1.jpg", f"{start}train/c/1.jpg"]
    assert _found(tmp_path, cells, column="file") == ["train/a/1.jpg", "train/b/1.jpg", ""]
    assert _found(tmp_path, cells[:2], column="file", folders=["train"]) == ["train/a/1.jpg", "train/b/1.jpg"]


def test_a_relative_path_is_never_shortened(tmp_path: Path) -> None:
    _touch(tmp_path, "1.jpg")
    assert _found(tmp_path, ["test/1.jpg"], column="file") == [""]


@pytest.mark.parametrize("extension", ["jfif", "jp2", "avif", "ppm", "JFIF", "pgm"])
def test_further_extensions_are_looked_up(tmp_path: Path, extension: str) -> None:
    _touch(tmp_path, f"a.b.{extension}")
    assert _found(tmp_path, ["a.b"], template="{id}") == [f"a.b.{extension}"]
    assert ids_in_folders([tmp_path], "{id}", with_extension=False) == ("a.b",)
