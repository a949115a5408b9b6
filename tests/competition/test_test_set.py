"""The rows of a submission: the sample's, a hidden test set's, or those of the files in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from pipeline.competition.folder_ids import ids_in_folders
from pipeline.competition.submission import submission_form
from pipeline.competition.test_set import TestSet, read_test_set
from pipeline.config import Config, check_config
from pipeline.errors import CompetitionError, ConfigError
from pipeline.events import Listener, ignore, notes_into


def _files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def _config(root: Path, competition: Mapping[str, object], **submission: object) -> Config:
    data = {"competition": {"root": str(root), **competition}, "submission": submission}
    return check_config(data, source="test")


def _read(
    config: Config,
    labels: tuple[str, ...],
    images: Path | None = None,
    train: Sequence[str] = (),
    listen: Listener = ignore,
) -> TestSet:
    form = submission_form(config.submission, config.competition, labels)
    return read_test_set(config.competition, config.submission, form, images=images, train_ids=train, listen=listen)


PLANT = {"id": "image", "images": {"template": "train_images/{id}", "test_template": "test_images/{id}"}}


def _plant(root: Path) -> Path:
    (root / "sample_submission.csv").write_text("image,labels\n85f8cb619c66b863.jpg,healthy\nad8770db05586b59.jpg,x\n")
    return _files(root, "test_images/85f8cb619c66b863.jpg", "test_images/ad8770db05586b59.jpg")


def test_a_hidden_test_set_is_answered_from_its_folder(tmp_path: Path) -> None:
    config = _config(_plant(tmp_path), PLANT, format="delimited")
    hidden = _files(
        tmp_path / "hidden", "85f8cb619c66b863.jpg", "ad8770db05586b59.jpg", "0b.1.jpg", "notes.txt", "t.jpg"
    )
    notes: list[str] = []
    found = _read(config, ("healthy", "x"), hidden, train=("t.jpg",), listen=notes_into(notes))
    assert found.sample.columns == ("image", "labels")
    assert found.sample.ids == found.table.ids == ("0b.1.jpg", "85f8cb619c66b863.jpg", "ad8770db05586b59.jpg")
    assert found.table.paths[0] == (hidden / "0b.1.jpg",)
    assert "asks for 2 images" in notes[0]
    assert "holds 3" in notes[0]


def test_a_folder_with_what_is_asked_for_changes_no_order_and_a_smaller_one_no_ids(tmp_path: Path) -> None:
    config = _config(_plant(tmp_path), PLANT, format="delimited")
    same = _files(tmp_path / "same", "ad8770db05586b59.jpg", "85f8cb619c66b863.jpg", "t.jpg")
    notes: list[str] = []
    found = _read(config, ("healthy", "x"), same, train=("t.jpg",), listen=notes_into(notes))
    assert found.table.ids == ("85f8cb619c66b863.jpg", "ad8770db05586b59.jpg")
    assert (found.table.paths[0], notes) == ((same / "85f8cb619c66b863.jpg",), [])
    fewer = _files(tmp_path / "fewer", "ad8770db05586b59.jpg", "other.jpg")
    assert _read(config, ("healthy", "x"), fewer).table.ids == found.table.ids
    more = _files(same, "more.jpg")
    samples_alone = config.model_copy(update={"submission": config.submission.model_copy(update={"ids": "sample"})})
    assert _read(samples_alone, ("healthy", "x"), more).table.ids == found.table.ids


def test_a_training_image_is_left_out_only_where_all_lie_in_the_folder(tmp_path: Path) -> None:
    folder = _files(tmp_path / "new", "0.png", "1.png", "2.png", "3.png")
    config = _config(tmp_path, {"sample_submission": None}, format="wide_binary")
    assert _read(config, ("a", "b"), folder, train=("0", "1")).table.ids == ("2", "3")
    assert _read(config, ("a", "b"), folder, train=("0", "1", "9")).table.ids == ("0", "1", "2", "3")
    assert _read(config, ("a", "b"), folder, train=("0", "1", "2", "3")).table.ids == ("0", "1", "2", "3")


def test_placeholder_ids_are_replaced_by_the_files(tmp_path: Path) -> None:
    config = _config(_plant(tmp_path), PLANT, format="delimited", ids="images")
    _files(tmp_path, "test_images/third.jpg")
    found = _read(config, ("healthy", "x"))
    assert found.sample.ids == ("85f8cb619c66b863.jpg", "ad8770db05586b59.jpg", "third.jpg")
    assert found.table.paths[2] == (tmp_path / "test_images/third.jpg",)


def test_without_a_sample_the_ids_are_the_test_csvs_or_the_files(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("id,img_path\n02,a/02.png\n01,a/01.png\n")
    config = _config(tmp_path, {"sample_submission": None, "test": "test.csv"}, format="wide_probability")
    found = _read(config, ("cat", "dog"))
    assert found.sample.columns == ("id", "cat", "dog")
    assert found.sample.ids == ("02", "01")
    _files(tmp_path, "test/7.png", "test/8.png")
    template = {"sample_submission": None, "images": {"template": "train/{id}.png", "test_template": "test/{id}.png"}}
    config = _config(tmp_path, template, format="long_binary", columns=["row_id", "target"])
    found = _read(config, ("a", "b"))
    assert found.sample.ids == ("7_a", "7_b", "8_a", "8_b")
    assert (found.sample.id_column, found.table.ids) == ("row_id", ("7", "8"))
    with pytest.raises(ConfigError, match=r"submission\.columns"):
        _read(_config(tmp_path, template, format="delimited"), ("a", "b"))
    with pytest.raises(ConfigError, match="--images DIR"):
        _read(_config(tmp_path, {"sample_submission": None}), ("a", "b"))


def test_a_long_sample_asks_about_each_image_once(tmp_path: Path) -> None:
    (tmp_path / "sample_submission.csv").write_text("row_id,fractured\n1.2.3_C1,0.5\n1.2.3_C2,0.5\n1.2.4_C1,0.5\n")
    competition = {"id": "StudyInstanceUID", "sample_id": "row_id", "images": {"template": "{id}.png"}}
    found = _read(_config(tmp_path, competition, format="long_probability"), ("C1", "C2"))
    assert found.table.ids == ("1.2.3", "1.2.4")
    assert found.sample.ids == ("1.2.3_C1", "1.2.3_C2", "1.2.4_C1")


@pytest.mark.parametrize(
    ("template", "files", "with_extension", "ids"),
    [
        ("{id}.jpg", ["a.b.jpg", "c.jpg", "c.png"], False, ("a.b", "c")),
        ("{id}", ["a.b.jpg", "c.PNG"], False, ("a.b", "c")),
        ("{id}", ["a.b.jpg", "c.PNG"], True, ("a.b.jpg", "c.PNG")),
        ("{id:05d}.png", ["00012.png", "00000.png", "x.png"], False, ("0", "12")),
        ("{id}_{channel}.png", ["u_v_red.png", "u_v_green.png", "u_v_blue.png"], False, ("u_v",)),
        ("test/{id[0]}/{id}.jpg", ["test/k/kx.jpg", "kx.jpg", "test/d/dy.jpg"], False, ("dy", "kx")),
        ("test [new]/{id}.jpg", ["test [new]/a.jpg"], False, ("a",)),
    ],
)
def test_ids_are_read_off_the_files(
    tmp_path: Path, template: str, files: list[str], with_extension: bool, ids: tuple[str, ...]
) -> None:
    _files(tmp_path, *files)
    channels = ("red", "green")
    assert ids_in_folders([tmp_path], template, with_extension=with_extension, channels=channels) == ids


def test_an_empty_folder_has_no_ids(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError, match="no images to take ids from"):
        ids_in_folders([_files(tmp_path, "readme.txt")], "{id}.jpg", with_extension=False)


def test_ids_that_stand_in_no_file_name_come_from_the_sample(tmp_path: Path) -> None:
    (tmp_path / "sample_submission.csv").write_text("id,a,b\n1,0,0\n2,0,0\n")
    (tmp_path / "test.csv").write_text("id,file\n1,x\n2,y\n")
    config = _config(tmp_path, {"test": "test.csv", "images": {"template": "test/{file}.png"}})
    moved = _files(tmp_path / "moved", "x.png", "y.png", "z.png")
    found = _read(config, ("a", "b"), moved)
    assert (found.table.ids, found.table.paths) == (("1", "2"), ((moved / "x.png",), (moved / "y.png",)))
    by_files = _config(tmp_path, {"images": {"template": "test/{file}.png"}}, ids="images")
    for images in (moved, None):
        with pytest.raises(ConfigError, match="no file name holds the id"):
            _read(by_files, ("a", "b"), images)
