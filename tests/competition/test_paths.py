"""From ids to image files: templates, folders, extensions, channels."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.competition.paths import (
    ImagePaths,
    image_paths,
    moved_to,
    nearest_file,
    paths_from_template,
    split_extension,
)
from pipeline.config import CompetitionConfig
from pipeline.config.templates import columns_of, parse_template
from pipeline.errors import CompetitionError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found_all(
    root: Path, images: Mapping[str, object], ids: Sequence[str], columns: Mapping[str, Sequence[str]], *, test: bool
) -> list[list[str]]:
    """The files of `ids` relative to `root`."""
    competition = CompetitionConfig.model_validate({"root": str(root), "id": "Id", "images": images})
    frame = pd.DataFrame({"Id": ids, **columns}, dtype=str)
    paths = image_paths(competition, frame, root / "lists" / "table.csv", test=test)
    return [[path.relative_to(root).as_posix() for path in image] for image in paths]


def found(
    root: Path,
    images: Mapping[str, object],
    ids: Sequence[str],
    columns: Mapping[str, Sequence[str]] | None = None,
    *,
    test: bool = False,
) -> list[str]:
    """The same where each image has one file."""
    return [file for (file,) in found_all(root, images, ids, columns or {}, test=test)]


@pytest.mark.parametrize(
    ("template", "id_", "name"),
    [
        ("{id:05d}.png", "7", "00007.png"),
        ("{id:05d}.png", "0012", "00012.png"),
        ("{id[0]}/{id[1]}/{id[2]}/{id}.png", "abcd", "a/b/c/abcd.png"),
        ("{id[:2]}/{id[-1]}/{id[-3:]}.png", "abcd", "ab/d/bcd.png"),
        ("x{id[1:3]:04d}.png", "a12b", "x0012.png"),
        ("{split}/{My Column}_{id}.png", "1.2.840", "val/b 1_1.2.840.png"),
    ],
)
def test_templates_format_numbers_and_cut_out_parts(tmp_path: Path, template: str, id_: str, name: str) -> None:
    columns = {"split": ["val"], "My Column": ["b 1"]}
    assert found(tmp_path, {"template": template}, [id_], columns) == [name]


@pytest.mark.parametrize(
    ("template", "part"),
    [
        ("{id", "no placeholder"),
        ("{id}}.png", "no placeholder"),
        ("{id[]}", "is no part"),
        ("{id[a]}", "is no part"),
        ("{id:5q}", "is no format"),
        ("{id:x5d}", "is no format"),
        ("a.png", "must hold"),
        ("{channel}.png", "must hold"),
        ("{id}_{channel}.png", "go together"),
    ],
)
def test_a_template_that_cannot_be_meant_is_refused_with_the_config(template: str, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        CompetitionConfig.model_validate({"images": {"template": template}})


def test_a_number_format_needs_numbers_and_other_columns_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match="2 values are none") as caught:
        found(tmp_path, {"template": "{id:05d}.png"}, ["1", "a1", "1.5"])
    assert "a1, 1.5" in str(caught.value)
    with pytest.raises(CompetitionError, match=r"no column 'splt'; did you mean 'split'\?"):
        found(tmp_path, {"template": "{splt}/{id}.png"}, ["1"], {"split": ["a"]})


@given(st.text(alphabet=st.characters(exclude_characters="{}"), max_size=8), st.text(min_size=1, max_size=8))
def test_text_around_a_placeholder_stays_as_it_is(text: str, id_: str) -> None:
    template = f"{text}{{id}}{text}"
    assert columns_of(template) == ["id"]
    ((path,),) = paths_from_template(template, {"id": [id_]}, folders=[Path("/nowhere")])
    assert path == Path("/nowhere") / f"{text}{id_}{text}"


@given(st.text(max_size=12))
def test_any_template_is_read_or_refused_in_words(template: str) -> None:
    try:
        parse_template(template)
    except ValueError as error:
        assert "{" in template or "}" in template
        assert str(error)  # noqa: PT017


def test_folders_are_searched_in_turn_and_may_be_a_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.png", "extra/a.png", "extra/b.png", "images_002/images/d.png", "images_001/images/c.png")
    names = {"folders": ["train", "extra", "images_*/images"], "template": "{id}.png"}
    assert found(tmp_path, names, list("abcde")) == [
        "train/a.png",
        "extra/b.png",
        "images_001/images/c.png",
        "images_002/images/d.png",
        "train/e.png",  # nowhere: what is missed is named in the first folder
    ]
    by_column = {"column": "file", "folders": ["train", "extra"]}
    assert found(tmp_path, by_column, ["1", "2"], {"file": ["b.png", "a.png"]}) == ["extra/b.png", "train/a.png"]


def test_the_test_images_have_folders_and_a_template_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.png", "test-jpg/x.jpg", "test-jpg-additional/y.jpg")
    images: dict[str, object] = {"template": "{id}.png", "test_template": "{id}.jpg", "folders": ["train"]}
    images["test_folders"] = ["test-jpg", "test-jpg-additional"]
    assert found(tmp_path, images, ["a"]) == ["train/a.png"]
    assert found(tmp_path, images, ["x", "y"], test=True) == ["test-jpg/x.jpg", "test-jpg-additional/y.jpg"]


def test_the_test_table_may_call_its_files_otherwise(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.png", "test/x.png")
    images: dict[str, object] = {"column": "경로", "test_column": "파일", "folders": ["."]}
    assert found(tmp_path, images, ["a"], {"경로": ["train/a.png"]}) == ["train/a.png"]
    assert found(tmp_path, images, ["x"], {"파일": ["test/x.png"]}, test=True) == ["test/x.png"]
    with pytest.raises(CompetitionError, match=r"competition\.images\.test_column"):
        found(tmp_path, images, ["x"], {"경로": ["test/x.png"]}, test=True)


def test_extensions_are_looked_up_and_dots_in_ids_are_none(tmp_path: Path) -> None:
    touch(tmp_path, "1.2.840.JPG", "1.2.tif", "b.png", "b.txt", "c.jpeg", "c.png", "d.jpg", "e", "f.png.txt")
    ids = ["1.2.840", "1.2", "b", "c", "e"]
    assert found(tmp_path, {"template": "{id}"}, ids) == ["1.2.840.JPG", "1.2.tif", "b.png", "c.jpeg", "e"]
    # external data beside the organisers' own, with another extension
    assert found(tmp_path, {"template": "{id}.png"}, ["b", "d", "f"]) == ["b.png", "d.jpg", "f.png"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [("a.b.jpg", ("a.b", ".jpg")), ("1.2.840", ("1.2.840", "")), ("a.JPeG", ("a", ".JPeG")), (".png", (".png", ""))],
)
def test_an_extension_is_a_known_one(name: str, parts: tuple[str, str]) -> None:
    assert split_extension(name) == parts


def test_column_values_are_relative_to_their_csv_and_may_come_from_windows(tmp_path: Path) -> None:
    touch(tmp_path, "lists/x/1.png", "lists/y/2.png")
    files = ["./x/1.png", ".\\y\\2.png"]
    assert found(tmp_path, {"column": "file"}, ["1", "2"], {"file": files}) == ["lists/x/1.png", "lists/y/2.png"]


def test_absolute_names_and_names_no_system_has_do_no_harm(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.png")
    files = [str(tmp_path / "x/1"), str(tmp_path / "x/\0/2.png")]
    assert found(tmp_path, {"column": "file"}, ["1", "2"], {"file": files}) == ["x/1.png", "x/\0/2.png"]


def test_one_file_per_channel_in_the_order_of_the_config(tmp_path: Path) -> None:
    touch(tmp_path, "t/a_red.png", "t/a_green.jpg", "t/b_red.png")
    images = {"template": "t/{id}_{channel}.png", "channel_files": ["green", "red"]}
    assert found_all(tmp_path, images, ["a", "b"], {}, test=False) == [
        ["t/a_green.jpg", "t/a_red.png"],
        ["t/b_green.png", "t/b_red.png"],
    ]


def test_a_hundred_thousand_ids_take_seconds(tmp_path: Path) -> None:
    touch(tmp_path, *(f"extra/{number:03d}/x.png" for number in range(50)))
    ids = [f"{number:06d}" for number in range(100_000)]
    begin = time.process_time()
    paths = paths_from_template("{id[:3]}/{id}.png", {"id": ids}, folders=[tmp_path / "train", tmp_path / "extra"])
    assert len(paths) == len(ids)
    assert time.process_time() - begin < 10


def test_files_are_found_again_in_another_folder(tmp_path: Path) -> None:
    touch(tmp_path, "new/a.jpg", "new/b.png")
    paths: list[ImagePaths] = [(tmp_path / "old/a.png",), (tmp_path / "old/b",), (tmp_path / "old/c.png",)]
    moved = moved_to(tmp_path / "new", paths)
    assert [path.name for (path,) in moved] == ["a.jpg", "b.png", "c.png"]
    assert {path.parent for (path,) in moved} == {tmp_path / "new"}


def test_the_file_nearest_to_a_missing_one_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "train/IMG_0001.jpg", "train/IMG_0042.jpg")
    (tmp_path / "empty").mkdir()
    assert nearest_file(tmp_path / "train/img-0042.png").endswith("is IMG_0042.jpg")
    assert nearest_file(tmp_path / "empty/a.png").endswith("is empty")
    assert nearest_file(tmp_path / "none/a.png").endswith("does not exist")
