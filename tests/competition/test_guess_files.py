"""First configs for the forms of real files: what is guessed for the sample, the test images, groups and labels."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.audit.first_config import NewConfig, new_config, try_config
from pipeline.competition.table import read_train
from pipeline.config import load_config
from pipeline.errors import CompetitionError
from pipeline.events import ignore

ROWS = range(12)
BITS = ["1,0,1", "0,1,0", "1,1,0", "0,0,1"]


def _images(root: Path, *names: str, channels: int = 3) -> None:
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shape = (24, 24, channels) if channels > 1 else (24, 24)
        assert cv2.imwrite(str(root / name), np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def _table(header: str, line: Callable[[int], str], rows: range = ROWS) -> str:
    return header + "\n" + "".join(line(row) + "\n" for row in rows)


def _bits(row: int) -> str:
    return BITS[row % 4]


def _new(root: Path, files: Mapping[str, str], train: str, images: str) -> tuple[dict[str, Any], NewConfig]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    written = new_config(root / train, root / images, out=root / "mine.yaml", listen=ignore)
    return load_config(written.path).model_dump(mode="json", exclude_unset=True), written


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    _images(tmp_path, *(f"train/a{row}.png" for row in ROWS))
    return tmp_path


TRAIN = _table("id,x,y,z", lambda row: f"a{row},{_bits(row)}")
SAMPLE = "id,x,y,z\n" + "".join(f"b{row},0.5,0.5,0.5\n" for row in range(3))


def test_test_images_may_have_the_names_of_training_images(root: Path) -> None:
    _images(root, *(f"holdout/a{row}.png" for row in range(20, 23)), "train/a20.png", "train/a21.png", "train/a22.png")
    sample = SAMPLE.replace("b0", "a20").replace("b1", "a21").replace("b2", "a22")
    config, _ = _new(root, {"train.csv": TRAIN, "sample.csv": sample}, "train.csv", "train")
    assert config["competition"]["images"]["test_template"] == "holdout/{id}.png"


@pytest.mark.parametrize(
    ("column", "cell", "is_group"),
    [
        ("Patient ID", lambda row: f"p{row // 2}", True),
        ("patientId", lambda row: f"p{row // 2}", True),
        ("site", lambda row: f"s{row // 2}", True),
        ("ID", lambda row: str(row // 2), True),
        ("Patient Age", lambda row: str(40 + row // 2), False),
        ("study_date", lambda row: f"2020010{row // 2}", False),
        ("patient_sex", lambda row: "MF"[row % 2], False),
        ("parasite", lambda row: str(row // 2), False),
        ("site", lambda row: f"s{row // 6}", False),
        ("blocked", lambda row: str(row // 2), False),
    ],
)
def test_groups_are_called_so_in_whole_words(
    root: Path, column: str, cell: Callable[[int], str], is_group: bool
) -> None:
    files = {"train.csv": _table(f"image,{column},x,y,z", lambda row: f"a{row}.png,{cell(row)},{_bits(row)}")}
    config, written = _new(root, files, "train.csv", "train")
    assert config["competition"].get("groups") == ([{"column": column}] if is_group else None)
    assert config["competition"]["labels"]["columns"] == ["x", "y", "z"]
    assert written.problem is None


@pytest.mark.parametrize(
    ("column", "cell", "labels", "submission"),
    [
        ("y", "['cat', 'dog']|['dog']", {"cells": "list"}, {"cells": "list"}),
        ("tags", "cat;dog|dog", {"separator": ";"}, {}),
    ],
)
def test_cells_that_hold_several_values(
    root: Path, column: str, cell: str, labels: dict[str, Any], submission: dict[str, Any]
) -> None:
    cells = cell.split("|")
    _images(root, "test/b0.png")
    files = {
        "train.csv": _table(f"id,{column}", lambda row: f'a{row},"{cells[row % 2]}"'),
        "sample_submission.csv": f'id,{column}\nb0,"{cells[0]}"\n',
    }
    config, written = _new(root, files, "train.csv", "train")
    found = config["competition"]["labels"]
    assert {key: found.get(key) for key in labels} == labels
    assert {key: config["submission"].get(key) for key in submission} == submission
    assert written.problem is None


def test_several_label_columns_and_columns_of_0_and_1(root: Path) -> None:
    text = _table("id,label_1,label_2", lambda row: f"a{row},{'cat' if row % 2 else 'dog'},{'owl' if row % 3 else ''}")
    labels = _new(root, {"train.csv": text}, "train.csv", "train")[0]["competition"]["labels"]
    assert labels == {"format": "columns", "columns": ["label_1", "label_2"]}
    (root / "mine.yaml").unlink()
    text = _table("id,labels,sex,x,y,z", lambda row: f"a{row},['N'],{row % 2},{_bits(row)}")
    labels = _new(root, {"train.csv": text}, "train.csv", "train")[0]["competition"]["labels"]
    assert labels == {"columns": ["x", "y", "z"]}


def test_annotations_that_are_no_table(root: Path) -> None:
    coco = {
        "images": [{"id": row, "file_name": f"a{row}.png"} for row in ROWS],
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [{"id": row, "image_id": row, "category_id": 1 if row % 2 else 7} for row in ROWS],
    }
    config, written = _new(root, {"labels.json": json.dumps(coco)}, "labels.json", "train")
    assert config["competition"]["labels"] == {"format": "coco"}
    assert written.problem is None
    (root / "mine.yaml").unlink()
    lines = {
        label: "".join(f"a{row} {1 if row % 2 == place else -1}\n" for row in ROWS) for place, label in enumerate("xy")
    }
    files = {f"Main/{label}_trainval.txt": text for label, text in lines.items()}
    config, written = _new(root, files, "Main", "train")
    assert config["competition"]["labels"] == {"format": "voc", "split": "trainval"}
    assert written.problem is None
    for text in ("[1, 2]", '{"info": 1, "labels": []}', "not json"):
        with pytest.raises(CompetitionError, match=r"other\.json: (a JSON of a kind|not a JSON)"):
            _new(root, {"other.json": text}, "other.json", "train")


@pytest.mark.parametrize("form", ["folders", "lists", "tables"])
def test_a_folder_or_file_per_class_becomes_a_table_that_new_reads(
    form: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = {f"a{row}": _bits(row).split(",") for row in ROWS}
    classes = dict(enumerate(["red fish", "dog", "owl"]))
    if form == "folders":
        truth = {
            f"sets/{name}/{row}.png": ["1" if at == place else "0" for at in classes]
            for place, name in classes.items()
            for row in range(4)
        }
        _images(root, *truth)
    (root / "sets").mkdir(exist_ok=True)
    for place, name in classes.items():
        bits = {id_: cells[place] for id_, cells in truth.items()}
        listed = [id_ for id_, bit in bits.items() if bit == "1"]
        if form == "lists":
            (root / f"sets/{name}.txt").write_text("\n".join(listed))
        elif form == "tables":
            bits.pop("a1" if name == "owl" else "", None)
            (root / f"sets/{name}.csv").write_text("image,there\n" + "".join(f"{i},{b}\n" for i, b in bits.items()))
    with pytest.raises(CompetitionError, match="no class files") as caught:
        _new(root, {}, "sets", "sets" if form == "folders" else "train")
    command = re.search(r"python -m pipeline (table .*?) writes one table of its 3", caught.value.remedy or "")
    assert command is not None
    assert main(shlex.split(command[1])) == 0
    assert main(shlex.split(command[1])) == 2
    assert "is there already" in capsys.readouterr().err
    cells = [line.split(",")[1:] for line in Path("sets_labels.csv").read_text().splitlines()[1:]]
    assert [cell for row in cells for cell in row if cell not in ("0", "1")] == ([""] if form == "tables" else [])
    _, written = _new(root, {}, "sets_labels.csv", "sets" if form == "folders" else "train")
    assert written.problem is None
    table = read_train(load_config(written.path).competition, ignore)
    order = [[*classes.values()].index(label) for label in table.labels]
    read = dict(zip(table.ids, table.targets.astype(int).astype(str).tolist(), strict=True))
    assert read == {id_: [cells[place] for place in order] for id_, cells in truth.items()}


def test_a_file_per_image_is_no_file_per_class(root: Path) -> None:
    boxes = {f"boxes/a{row}.txt": "0 0.5 0.5 0.1 0.1" for row in ROWS}
    with pytest.raises(CompetitionError, match="no class files") as caught:
        _new(root, boxes, "boxes", "train")
    assert caught.value.remedy == "give a table with a row per image"


def test_a_folder_without_classes_is_no_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("train", "absent"):
        assert main(["table", str(root / folder)]) == 2
        assert "not a folder of classes" in capsys.readouterr().err
    assert not Path("labels.csv").exists()


def test_the_recipe_has_its_reason_and_the_turns_can_be_switched_on(root: Path) -> None:
    table = _table("id,file,x,y,z", lambda row: f"a{row},./train/a{row}.png,{_bits(row)}")
    config, written = _new(root, {"train.csv": table}, "train.csv", "train")
    assert config["recipe"] == "auto"
    text = written.path.read_text()
    assert re.search("^recipe: auto  # finetune_cnn; a transformer: .*docs/recipes.md$", text, re.MULTILINE)
    assert "lead to other images" not in text  # the id is the name of the row's own image
    written.path.write_text(text.replace("# augment:", "augment:"))
    turned = load_config(written.path)
    assert [*turned.augment.train[0]] == ["D4"]
    try_config(turned, ignore)


def test_new_says_ready_only_for_what_works(root: Path) -> None:
    (root / "train/a0.png").write_bytes(b"broken")
    problem = _new(root, {"train.csv": TRAIN}, "train.csv", "train")[1].problem
    assert problem is not None
    assert "a0.png" in str(problem)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("key,mask\n{a}.png_x,1 2\n{a}.png_y,\n", {"format": "long", "column": "mask", "filled": True}),
        ("id,name,sure\n{a},x,1\n{a},y,0\n", {"format": "long", "label_column": "name", "column": "sure"}),
        ("id,name,box\n{a},x,1 2\n{a},y,3\n", {"format": "long", "label_column": "name"}),
    ],
)
def test_tables_with_several_rows_of_an_image(root: Path, text: str, labels: dict[str, Any]) -> None:
    header, *lines = text.splitlines(keepends=True)
    table = header + "".join(line.format(a=f"a{row}") for row in ROWS for line in lines)
    if "sure" in text:
        table += "a0,z,1\n"  # not every image has a row for every label
        labels = {**labels, "missing": "ignore"}
    config, written = _new(root, {"train.csv": table}, "train.csv", "train")
    assert config["competition"]["labels"] == labels
    assert written.problem is None


@pytest.mark.parametrize("start", ["/data/upload/", "C:\\\\eve\\\\", "../input/"])
def test_paths_of_another_machine_are_found_by_their_tails(root: Path, start: str) -> None:
    text = _table("n,image,x,y,z", lambda row: f"{row + 100},{start}a{row}.png,{_bits(row)}")
    config, written = _new(root, {"train.csv": text}, "train.csv", "train")
    assert config["competition"]["images"] == {"column": "image", "folders": ["train"]}
    assert written.problem is None


@pytest.mark.parametrize("columns", [("StudyID", "PatientID"), ("image_type_id", "lesion_id"), ("class_id", "patient")])
def test_the_coarser_group_of_several_ids_is_taken(root: Path, columns: tuple[str, str]) -> None:
    text = _table(
        f"image,{columns[0]},{columns[1]},x,y,z", lambda row: f"a{row}.png,s{row // 2},p{row // 2},{_bits(row)}"
    )
    assert _new(root, {"train.csv": text}, "train.csv", "train")[0]["competition"]["groups"] == [{"column": columns[1]}]
