"""A config guessed from a table and a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.competition.guess.first_config import config_text, guess_config
from pipeline.competition.table import read_train
from pipeline.config import check_config, load_config
from pipeline.errors import CompetitionError
from pipeline.events import ignore
from tests.competitions.miniatures import MINIATURES, write_miniature
from tests.conftest import PROJECT

# The table and the folder of images that a person would name.
GIVEN = {
    "dacon_4d_block": ("train.csv", "train"),
    "dirty_mnist": ("dirty_mnist_2nd_answer.csv", "dirty_mnist_2nd"),
    "planet_amazon": ("train_v2.csv", "train-jpg"),
    "hpa_2018": ("train.csv", "train"),
    "plant_pathology_2021": ("train.csv", "train_images"),
    "ranzcr_clip": ("train.csv", "train"),
    "nih_chestxray14": ("Data_Entry_2017.csv", "."),
    "chexpert": ("CheXpert-v1.0-small/train.csv", "."),
    "grand_xray_slam": ("train1.csv", "train1"),
    "comp5329": ("train.csv", "data"),
    "rsna_hemorrhage": ("stage_2_train.csv", "stage_2_train"),
}


@pytest.mark.parametrize("name", GIVEN)
def test_the_guess_reads_what_the_written_config_reads(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_miniature(Path("data"), MINIATURES[name])
    train, images = (Path("data") / part for part in GIVEN[name])
    guess = guess_config(train, images)
    text = config_text(guess, train=train, images=images, path=Path("configs/x.yaml"))
    assert all(f"#   {reason}" in text for reason in guess.reasons)
    guessed = check_config(yaml.safe_load(text), source="guess")
    written = load_config(PROJECT / f"configs/competitions/{name}.yaml", ["competition.root=data"])
    ours, theirs = (
        read_train(config.competition.model_copy(update={"labels": labels, "groups": None}), ignore)
        for config, labels in (
            (guessed, guessed.competition.labels),
            (written, written.competition.labels.model_copy(update={"exclusive": ()})),
        )
    )
    assert sorted(ours.labels) == sorted(theirs.labels)
    assert [path.resolve() for files in ours.paths for path in files] == [
        path.resolve() for files in theirs.paths for path in files
    ]
    assert guessed.submission.format in (written.submission.format, "wide_binary", "wide_probability")
    assert guessed.images.channels == written.images.channels
    assert getattr(guessed.competition.labels, "empty_tokens", []) == getattr(
        written.competition.labels, "empty_tokens", []
    )


def _write(root: Path, text: str, *images: str) -> tuple[Path, Path]:
    (root / "train.csv").write_text(text)
    for name in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root / "train.csv", root / "img"


@pytest.mark.parametrize(
    ("text", "images", "part", "expected"),
    [
        ("k,labels\n1,\"['a', 'b']\"\n2,['a']\n", ("img/1.png", "img/2.png"), "labels", {"cells": "list"}),
        ("k,genre\nx,a; b\ny,a\n", ("img/x.jpg", "img/y.jpeg"), "labels", {"separator": ";"}),
        ("k,genre\nx,a b\ny,a\n", ("img/x.jpg", "img/y.jpeg"), "images", {"template": "img/{id}"}),
        (
            "k,a,b\nx,1,-1\ny,0,1\nz,,1\n",
            ("img/x.jpg", "img/y.jpg", "img/z.jpg"),
            "labels",
            {"uncertain": "ignore", "missing": "zeros"},
        ),
        (
            "k,class_name\nx,Big lesion\nx,No finding\nx,Mass\ny,Big lesion\ny,Mass\n",
            ("img/x.png", "img/y.png"),
            "labels",
            {"format": "long", "label_column": "class_name", "empty_tokens": ["No finding"]},
        ),
        ("n,file,a,b\n1,img/x.jpg,1,0\n2,img/x.jpg,0,1\n", ("img/x.jpg",), "images", {"column": "file"}),
        (
            "k,clip,a,b\nx0,c,1,0\nx1,c,0,1\nx2,d,0,1\nx3,e,0,1\nx4,f,0,1\nx5,g,0,1\n",
            tuple(f"img/x{row}.jpg" for row in range(6)),
            "groups",
            {"column": "clip"},
        ),
    ],
)
def test_what_a_cell_speaks_for_is_guessed(
    tmp_path: Path, text: str, images: tuple[str, ...], part: str, expected: dict[str, Any]
) -> None:
    found = guess_config(*_write(tmp_path, text, *images)).config["competition"][part]
    assert {key: found.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("text", "images", "message"),
    [
        ("id,a,b\nx,1,0\n", ("img/other.jpg",), "no column leads to the 1 images"),
        ("id,a,b\nx,1,0\n", (), "no images in this folder"),
        ("id,age\nx,31\ny,45\n", ("img/x.jpg", "img/y.jpg"), "no column looks like labels"),
    ],
)
def test_where_nothing_speaks_for_it_nothing_is_guessed(
    tmp_path: Path, text: str, images: tuple[str, ...], message: str
) -> None:
    with pytest.raises(CompetitionError, match=message):
        guess_config(*_write(tmp_path, text, *images))
