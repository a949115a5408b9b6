"""The files that people bring: `new` writes a config that reads them as they are meant, and the check agrees."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import yaml

from pipeline.audit.check import audit_competition
from pipeline.audit.first_config import new_config
from pipeline.competition.table import read_train
from pipeline.config import load_config
from pipeline.errors import CompetitionError
from pipeline.events import Note, ignore, notes_into

ROWS = range(12)
BITS = ["1,0,1", "0,1,0", "1,1,0", "0,0,1"]


class Brought(NamedTuple):
    """Files of one shape, and what is right for them."""

    files: Mapping[str, str]  # the training table first; images lie in the folder of the first image
    images: list[str]
    right: dict[str, Any]  # keys of the written config, dotted, and their values; None: it is not there
    said: tuple[str, ...] = ()  # by `new` or the check
    bits: int = 8
    channels: int = 3


def _table(header: str, line: Callable[[int], str], rows: range = ROWS) -> str:
    return "\n".join([*([header] if header else []), *map(line, rows)]) + "\n"


def _bits(row: int, values: str = "01") -> str:
    return ",".join(
        values[int(bit)] if len(values) == 2 else values.split()[int(bit)] for bit in BITS[row % 4].split(",")
    )


def _pictures(pattern: str, rows: range = ROWS) -> list[str]:
    return [pattern.format(row) for row in rows]


TESTS = range(20, 24)
SAMPLE = _table("id,x,y,z", lambda row: f"b{row},0.5,0.25,0.25", TESTS)
WIDE = _table("id,x,y,z", lambda row: f"a{row},{_bits(row)}")
TRAINED, TESTED = _pictures("train/a{}.png"), _pictures("test/b{}.png", TESTS)


def _captions(mark: str, text: str) -> Brought:
    lines = _table(
        mark.join(("file", "tags", "text")),
        lambda row: mark.join((f"a{row}.jpg", f"{row % 3 + 1}{' 7' if row % 2 else ''}", text)),
    )
    broken = lines.replace(f"a5.jpg{mark}3 7{mark}{text}", f'a5.jpg{mark}3 7{mark}"a wall, and\nthe "sky"."')
    right = {"competition.quoting": "none", "competition.labels.column": "tags"}
    return Brought({"t.csv": broken}, _pictures("img/a{}.jpg"), right, ("cells of 1 rows span several lines",))


def _called_sample(name: str) -> Brought:
    table = _table("file,finding,person no", lambda row: f"{row:03d}.png,{'a|b' if row % 2 else 'nothing'},{row // 2}")
    right = {"competition.sample_submission": None, "competition.labels.empty_tokens": ["nothing"]}
    return Brought({name: table, f"copy_{name}": table}, _pictures("scan/{:03d}.png"), right)


def _several_submissions(other: str, folder: str) -> Brought:
    files = {"train.csv": WIDE, "sample_submission.csv": SAMPLE, other: SAMPLE.replace("0.5", "1")}
    right = {
        "competition.sample_submission": "sample_submission.csv",
        "competition.images.test_template": f"{folder}/{{id}}.png",
    }
    return Brought(files, TRAINED + _pictures(f"{folder}/b{{}}.png", TESTS), right)


def _paths_in_both(column: str, start: str) -> Brought:
    files = {
        "train.csv": _table(f"id,{column},x,y,z", lambda row: f"a{row},{start}train/a{row}.png,{_bits(row)}"),
        "test.csv": _table(f"id,{column}", lambda row: f"b{row},{start}test/b{row}.png", TESTS),
        "sample_submission.csv": SAMPLE,
    }
    right = {"competition.images": {"column": column}, "competition.test": "test.csv", "competition.id": "id"}
    return Brought(files, TRAINED + TESTED, right)


def _further_column(cells: tuple[str, str], labels: str, further: str, value: str) -> Brought:
    files = {
        "train.csv": _table("id,kinds", lambda row: f'a{row},"{cells[row % 2]}"'),
        "sample_submission.csv": _table(f"id,kinds,{further}", lambda row: f"b{row},{labels},{value}", TESTS),
    }
    right = {"submission.constants": {further: value}, "submission.format": "delimited"}
    return Brought(files, TRAINED + TESTED, right)


def _no_header(name: str, cells: tuple[str, str]) -> Brought:
    files = {"labels.csv": _table("", lambda row: f"a{row}{name},{cells[row % 2]}")}
    return Brought(files, TRAINED, {"competition.header": ["id", "column_2"]}, ("the table has no header",))


def _signs(values: str, uncertain: str) -> Brought:
    extra = f"a{ROWS[-1]},{'0,0,0' if uncertain == 'ignore' else _bits(3, values)}\n"
    table = _table("id,x,y,z", lambda row: f"a{row},{_bits(row, values)}", ROWS[:-1]) + extra
    return Brought({"t.csv": table}, TRAINED, {"competition.labels.uncertain": uncertain})


def _groups(header: str, cell: Callable[[int], str], group: str | None) -> Brought:
    table = _table(f"image,{header},x,y,z", lambda row: f"a{row}.png,{cell(row)},{_bits(row)}")
    wanted = None if group is None else [{"column": group}]
    right = {"competition.groups": wanted, "competition.labels.columns": ["x", "y", "z"]}
    return Brought({"t.csv": table}, TRAINED, right)


def _label_like_a_group(name: str) -> Brought:
    files = {"train.csv": WIDE.replace("x,y,z", f"x,{name},z"), "sample.csv": SAMPLE.replace("x,y,z", f"x,{name},z")}
    return Brought(files, TRAINED + TESTED, {"competition.groups": None, "competition.sample_submission": "sample.csv"})


def _boxes(column: str, sample: str) -> Brought:
    table = _table(f"id,{column},reader,x", lambda row: f"a{row % 6},{('Mass', 'Node', 'ILD')[row % 3]},r{row},{row}")
    files = {"train.csv": table, "sample_submission.csv": _table("id,Boxes", lambda row: f"b{row},{sample}", TESTS)}
    right = {"competition.labels.label_column": column, "submission.columns": ["id", "Boxes"]}
    return Brought(files, _pictures("train/a{}.png", range(6)) + TESTED, right, ("is it of another task?",))


def _two_tables(labels: str, features: str) -> Brought:
    table = _table("id,path,site", lambda row: f"a{row},train/a{row}.png,s{row}")
    test = _table("id,path,site", lambda row: f"b{row},test/b{row}.png,s{row}", TESTS)
    files = {labels: WIDE, features: table, f"test_{features}": test, "sample_submission.csv": SAMPLE}
    right = {"competition.train": labels, "competition.images.test_template": "test/{id}.png"}
    return Brought(files, TRAINED + TESTED, right)


def _people_in_paths(word: str) -> Brought:
    names = [f"set/train/{word}{row // 2:03d}/view{row % 2}.png" for row in ROWS]
    table = _table("Path,Age,x,y,z", lambda row: f"{names[row]},{40 + row // 2},{_bits(row)}")
    right = {"competition.groups": [{"regex": f"({word}[^/]*\\d[^/]*)/", "of": "id"}]}
    return Brought({"set/train.csv": table}, names, right)


def _vectors(column: str, cell: Callable[[str], str], blank: str) -> Brought:
    files = {
        "train.csv": _table(f"id,{column}", lambda row: f'a{row},"{cell(BITS[row % 4])}"'),
        "sample_submission.csv": _table(f"id,{column}", lambda row: f'b{row},"{blank}"', TESTS),
    }
    right = {
        "competition.labels.cells": "vector",
        "competition.labels.classes": ["class_0", "class_1", "class_2"],
        "submission.cells": "vector",
        "competition.sample_submission": "sample_submission.csv",
    }
    return Brought(files, TRAINED + TESTED, right)


def _few_bits(bits: int) -> Brought:
    right = {"images.window": [0, (1 << bits) - 1]}
    return Brought({"t.csv": WIDE}, TRAINED, right, ("images of 16 bits hold no value above",), bits=bits, channels=1)


def _other_unicode(word: str, column: bool) -> Brought:
    names = [f"{word}/{word}_{row}.png" for row in ROWS]
    cell = (lambda row: names[row]) if column else (lambda row: f"{word}_{row}")
    files = {"t.csv": _table("file,x,y,z", lambda row: f"{unicodedata.normalize('NFC', cell(row))},{_bits(row)}")}
    return Brought(files, [unicodedata.normalize("NFD", name) for name in names], {"competition.id": "file"})


def _hidden_files(beside: str) -> Brought:
    files = {"train.csv": WIDE, "sample_submission.csv": SAMPLE}
    files |= {beside.format(folder, name): "\0\5\26\7" for folder, name in (("train", "a1.png"), ("test", "b20.png"))}
    return Brought(files, TRAINED + TESTED, {"competition.images.template": "train/{id}.png"})


def _two_views(sides: tuple[str, str]) -> Brought:
    names = [f"eyes/{row}_{side}.png" for row in ROWS for side in sides]
    table = _table(
        f"no,{sides[0]},{sides[1]},x,y,z", lambda row: f"{row},{row}_{sides[0]}.png,{row}_{sides[1]}.png,{_bits(row)}"
    )
    right = {"competition.id": sides[0], "competition.images.template": "eyes/{id}"}
    return Brought({"t.csv": table}, names, right, (f"images: {sides[1]} lead to other images, which are not used",))


def _channel_files(colours: tuple[str, ...]) -> Brought:
    names = [f"cells/a{row}_{colour}.png" for row in ROWS for colour in colours]
    right = {"images.channels": len(colours), "competition.images.channel_files": list(colours)}
    return Brought({"t.csv": WIDE}, names, right, channels=1)


def _nothing(word: str, mark: str) -> Brought:
    table = _table("id,tags", lambda row: f"a{row},{word if row % 3 == 2 else f'cat{mark}dog' if row % 2 else 'dog'}")
    return Brought({"t.csv": table}, TRAINED, {"competition.labels.empty_tokens": [word]})


def _nothing_in_columns(word: str) -> Brought:
    table = WIDE + "".join(f"a{row},{word},1,0\n" for row in (20, 21))
    files = {"t.csv": table}
    return Brought(files, TRAINED + _pictures("train/a{}.png", range(20, 22)), {"competition.labels.missing": "zeros"})


BROUGHT = {
    "captions": (_captions(",", "a boat."), _captions(";", "two cats, one is old")),
    "called like a sample": (_called_sample("sample_train.csv"), _called_sample("submission_labels.csv")),
    "several submissions": (
        _several_submissions("a_submission.csv", "holdout"),
        _several_submissions("best_submit.csv", "images/eval"),
    ),
    "paths in both tables": (_paths_in_both("file", ""), _paths_in_both("photo_path", "./")),
    "a further column": (
        _further_column(("[3.0, 8.0]", "[5.0]"), "3 8", "unseen", "0.75"),
        _further_column(("cat dog", "owl"), "cat", "remark", "none"),
    ),
    "no header": (_no_header("", ("/m/1 /m/2", "/m/3")), _no_header(".png", ("cat", "owl dog"))),
    "-1": (_signs("-1.0 1.0", "zeros"), _signs("-1 1", "zeros"), _signs("-1 1", "ignore")),
    "columns like groups": (
        _groups("Age of patient,ID", lambda row: f"{40 + row // 2},{row // 2}", "ID"),
        _groups("visit_date,case_id", lambda row: f"2020010{row // 2},c{row // 2}", "case_id"),
        _groups("patient_sex", lambda row: "MF"[row % 2], None),
    ),
    "a label like groups": (_label_like_a_group("site"), _label_like_a_group("caseous")),
    "boxes": (_boxes("class_name", "14 1 0 0 1 1"), _boxes("finding", "0.5 10 20 30 40")),
    "two tables": (_two_tables("train_labels.csv", "features.csv"), _two_tables("y_train.csv", "x.csv")),
    "people in paths": (_people_in_paths("patient"), _people_in_paths("video")),
    "vectors": (
        _vectors("target", lambda bits: f"[{bits}]", "[0, 0, 0]"),
        _vectors("y", lambda bits: bits.replace(",", " "), "0 0 0"),
    ),
    "few bits": (_few_bits(10), _few_bits(14)),
    "another Unicode form": (_other_unicode("나무", False), _other_unicode("été", True)),
    "hidden files": (_hidden_files("{}/._{}"), _hidden_files("{}/__MACOSX/._{}")),
    "two views": (_two_views(("left", "right")), _two_views(("front", "back"))),
    "grey files": (_channel_files(("red", "green", "blue", "yellow")), _channel_files(("a", "b", "c", "d", "e"))),
    "words for nothing": (
        _nothing("NaN", " "),
        _nothing("None", ";"),
        _nothing_in_columns("NA"),
        _nothing_in_columns("-"),
    ),
}
INSTANCES = [(kind, number) for kind, instances in BROUGHT.items() for number in range(len(instances))]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bring(root: Path, brought: Brought) -> None:
    """Write the files and images."""
    for name, text in brought.files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    for seed, name in enumerate(brought.images):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shape = (24, 24, 3) if brought.channels == 3 else (24, 24)
        kind = np.uint8 if brought.bits == 8 else np.uint16
        assert cv2.imwrite(
            str(root / name), np.random.default_rng(seed).integers(0, 1 << brought.bits, shape, dtype=kind)
        )


@pytest.mark.parametrize(("kind", "number"), INSTANCES)
def test_what_people_bring_is_read_as_it_is_meant(kind: str, number: int, root: Path) -> None:
    brought = BROUGHT[kind][number]
    bring(root, brought)
    train, first = next(iter(brought.files)), brought.images[0].split("/")
    said: list[str] = []
    written = new_config(
        root / train,
        root / ("set" if first[0] == "set" else "/".join(first[:-1])),
        out=root / "mine.yaml",
        listen=lambda event: said.append(event.sentence) if isinstance(event, Note) else None,
    )
    assert written.problem is None
    config = load_config(written.path)
    data = config.model_dump(mode="json", exclude_unset=True)
    for key, value in brought.right.items():
        found: Any = data
        for part in key.split("."):
            found = (found or {}).get(part)
        assert found == value, key
    audit = audit_competition(config, listen=ignore)
    assert audit.errors == ()
    assert not {"no_header", "label_without_negative", "label_for_nothing", "few_bits"} & {
        each.kind for each in audit.findings
    }
    for part in brought.said:
        assert any(part in sentence for sentence in said), said
    if kind != "two views":
        assert not any("lead to other images" in sentence for sentence in said), said


@pytest.mark.parametrize("cells", [("/m/1 /m/2", "/m/3"), ("cat", "owl dog")])
@pytest.mark.parametrize("name", ["", ".png"])
def test_a_header_that_is_an_image_is_a_warning_and_its_remedy_trains_it(
    name: str, cells: tuple[str, str], root: Path
) -> None:
    bring(root, _no_header(name, cells))
    competition: dict[str, Any] = {"train": "labels.csv", "sample_submission": None, "id": f"a0{name}"}
    competition["images"] = {"template": "train/{id}" if name else "train/{id}.png"}
    competition["labels"] = {"format": "delimited", "column": cells[0]}
    (root / "mine.yaml").write_text(yaml.safe_dump({"competition": {"root": ".", **competition}}))
    found = {each.kind: each for each in audit_competition(load_config(root / "mine.yaml"), listen=ignore).findings}
    remedy = [
        f"competition.{key}={value}"
        for key, value in re.findall(r"competition\.(\w+): (\[.*?\]|\w+)", found["no_header"].remedy)
    ]
    config = load_config(root / "mine.yaml", [*remedy, "competition.labels.column=column_2"])
    notes: list[str] = []
    table = read_train(config.competition, notes_into(notes))
    assert (len(table.ids), notes) == (len(ROWS), [])


@pytest.mark.parametrize(("key", "count"), [("shop", 6), ("dive_id", 4)])
def test_labels_of_bags_are_named_and_the_remedy_reads_them(key: str, count: int, root: Path) -> None:
    files = {
        "bags.csv": _table(f"{key},labels", lambda row: f"s{row},{row % 3 + 1}{' 7' if row % 2 else ''}", range(count)),
        "photos.csv": _table(f"photo,{key}", lambda row: f"a{row},s{row % count}"),
    }
    bring(root, Brought(files, TRAINED, {}))
    with pytest.raises(CompetitionError, match="labels are of bags of images") as caught:
        new_config(root / "bags.csv", root / "train", out=None, listen=ignore)
    remedy = re.findall(r"(competition\.\w+): (\{.*?\}|[\w.]+)", caught.value.remedy)
    competition = {"images": {"template": "train/{id}.png"}, "labels": {"format": "delimited", "column": "labels"}}
    base = {"competition": {"root": ".", "id": "photo", "sample_submission": None, **competition}}
    (root / "mine.yaml").write_text(yaml.safe_dump(base))
    config = load_config(root / "mine.yaml", [f"{name}={value}" for name, value in remedy])
    table = read_train(config.competition, ignore)
    assert (len(remedy), table.ids) == (3, tuple(f"a{row}" for row in ROWS))
    assert (table.labels, table.groups and table.groups[2]) == (("1", "2", "3", "7"), "s2")


@pytest.mark.parametrize("labels", ["labels.csv", "y.csv"])
def test_a_table_without_labels_names_the_one_that_has_them(labels: str, root: Path) -> None:
    brought = _two_tables(labels, "x.csv")
    bring(root, brought)
    with pytest.raises(CompetitionError, match="no column looks like labels") as caught:
        new_config(root / "x.csv", root / "train", out=None, listen=ignore)
    table = re.match(r"give (\S+), which has the same ids", caught.value.remedy)
    assert table is not None
    assert new_config(Path(table[1]), root / "train", out=root / "mine.yaml", listen=ignore).problem is None
