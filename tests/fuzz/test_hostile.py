"""Hostile tables, images, configs and run folders: success or the project's own error, and nothing else.

A share by default; `pytest -m slow tests/fuzz` runs 2,000 tables, 500 images, 300 configs and 100 run folders, from the
seed FUZZ_SEED of the environment on.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import run_cv
from pipeline.competition.folds import stratified_folds
from pipeline.competition.submission import submission_form
from pipeline.competition.table import read_train
from pipeline.competition.test_set import read_test_set
from pipeline.config import check_config, dump_config, load_config, parse_yaml
from pipeline.errors import PipelineError
from pipeline.events import ignore
from pipeline.images.check import check_images
from pipeline.images.decoding.decode import read_image
from pipeline.images.geometry import ImageForm, Reading
from pipeline.images.image_stats import read_image_stats
from pipeline.metrics.registry import get_metric
from pipeline.prediction.tta import parse_views
from pipeline.report.curves import draw_curves, read_epochs
from pipeline.run.folder import RunFolder
from pipeline.run.submission.submit import submit
from pipeline.run.trained_run import open_run
from pipeline.training.build import build_loss
from tests.conftest import PROJECT, TINY, make_wide_competition
from tests.fuzz.harness import attempt, damaged, findings, mutated, text, value

FIRST = int(os.environ.get("FUZZ_SEED", "0"))
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def shares(few: int, all_: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("count", [few, pytest.param(all_, marks=pytest.mark.slow)])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, beside one that nobody may read."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("id,fold\na,0\n")
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    return tmp_path / "inside"


def all_of(count: int, place: Path, make: Callable[[int], Callable[[], object]]) -> None:
    outcomes = {seed: attempt(make(seed), place, place.parent / "outside") for seed in range(FIRST, FIRST + count)}
    report = findings(outcomes)
    print(report.splitlines()[0])  # noqa: T201 (the counts)
    assert set(outcomes.values()) <= {"done", "refused"}, report


LABELS: list[tuple[dict[str, Any], str]] = [  # with the kind of the cells
    ({"format": "wide", "columns": ["a", "b", "c"]}, "numbers"),
    ({"format": "wide", "columns": ["a", "b"], "soft": True, "uncertain": "ignore", "missing": "zeros"}, "numbers"),
    ({"format": "wide"}, "numbers"),
    ({"format": "delimited", "column": "a"}, "names"),
    ({"format": "delimited", "column": "a", "separator": "|", "empty_tokens": ["nan"]}, "names"),
    ({"format": "delimited", "column": "a", "cells": "list"}, "lists"),
    ({"format": "delimited", "column": "a", "cells": "vector", "classes": ["x", "y"]}, "vectors"),
    ({"format": "columns", "columns": ["a", "b"]}, "name"),
    ({"format": "long", "label_column": "a", "column": "b"}, "numbers"),
    ({"format": "long", "label_column": "a"}, "name"),
    ({"format": "long", "column": "b", "separator": "_"}, "numbers"),
    ({"format": "coco"}, "numbers"),
    ({"format": "voc"}, "numbers"),
    ({"format": "per_class", "files": "{label}.txt"}, "name"),
]
CELLS: dict[str, Callable[[random.Random], str]] = {
    "numbers": lambda chance: chance.choice(["0", "1"]),
    "names": lambda chance: chance.choice([" ", "|"]).join(chance.sample(["x", "y", "z"], chance.randrange(4))),
    "name": lambda chance: chance.choice(["x", "y", "z"]),
    "lists": lambda chance: str(chance.sample(["x", "y", "z"], chance.randrange(3))),
    "vectors": lambda chance: str([chance.randrange(2), chance.randrange(2)]),
}


def table(chance: random.Random, kind: str, ids: str, columns: Sequence[str], count: int) -> bytes:
    """A CSV of `count` rows, mostly sound, with some cells, or its bytes, from an enemy."""
    cells = CELLS[kind if chance.random() < 0.95 else chance.choice(list(CELLS))]
    header = [*columns, *(["d"] * (chance.random() < 0.2))]
    rows = [[ids.format(number), f"{number}.png", *(cells(chance) for _ in header[2:])] for number in range(count)]
    for _ in range(chance.choice((0, 0, 0, 1, 3))):
        rows[chance.randrange(len(rows))][chance.randrange(len(header))] = text(chance)
    if chance.random() < 0.04:
        header[chance.randrange(len(header))] = text(chance)
    stream = io.StringIO()
    csv.writer(stream, lineterminator=chance.choice(["\n", "\r\n", "\r"])).writerows([header, *rows])
    encoding = chance.choice(["utf-16", "cp949", "latin-1"]) if chance.random() < 0.06 else "utf-8"
    data = stream.getvalue().encode(encoding, errors="replace")
    return damaged(data, chance) if chance.random() < 0.1 else data


def coco(chance: random.Random) -> bytes:
    data = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in range(5)],
        "annotations": [{"id": number, "image_id": number % 5, "category_id": number % 2} for number in range(9)],
        "categories": [{"id": 0, "name": "x"}, {"id": 1, "name": "y"}],
    }
    return json.dumps(mutated(data, chance) if chance.random() < 0.6 else data).encode()


def read_competition(root: Path, seed: int) -> Callable[[], object]:
    chance = random.Random(seed)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    labels, kind = chance.choice(LABELS)
    train = {"coco": "train.json", "voc": "."}.get(labels["format"], "train.csv")
    ids = "{:05d}_x" if labels.get("separator") == "_" else "{}"
    (root / "train.csv").write_bytes(
        table(chance, kind, ids, ["id", "img_path", "a", "b", "c"], chance.randrange(1, 40))
    )
    (root / "train.json").write_bytes(coco(chance))
    for name in ("x.txt", "y_trainval.txt", "z_trainval.txt"):
        (root / name).write_bytes(damaged(b"1 1\n2 -1\n3 0\n", chance) if chance.random() < 0.3 else b"1 1\n2 -1\n")
    rows, asked = chance.randrange(1, 9), {"wide": ["a", "b", "c"]}.get(labels["format"], ["a"])
    (root / "sample_submission.csv").write_bytes(table(chance, kind, "t{}", ["id", "img_path", *asked], rows))
    (root / "test.csv").write_bytes(table(chance, kind, "t{}", ["id", "img_path"], rows))
    images = chance.choice([{"column": "img_path"}, *[{"template": "{id}.png"}] * 3, {"template": "{id[:2]}/{id:05d}"}])
    competition = {"root": str(root), "train": train, "labels": labels, "images": images}
    competition |= chance.choice([{}, {"test": "test.csv"}])
    competition |= chance.choice([{}, {}, {"quoting": "none"}, {"groups": {"regex": "(.)"}}, {"encoding": "utf-8"}])

    def action() -> None:
        config = check_config({"competition": competition}, source="fuzz")
        found = read_train(config.competition, ignore)
        positives, count = found.positives, min(3, len(found.ids))
        stratified_folds(found.ids, positives, found.labels, count=count, seed=seed, groups=found.groups)
        form = submission_form(config.submission, config.competition, found.labels)
        read_test_set(
            config.competition, config.submission, form, images=None, train_ids=frozenset(found.ids), listen=ignore
        )

    return action


@shares(60, 2000)
def test_tables(place: Path, count: int) -> None:
    all_of(count, place, lambda seed: read_competition(place / "data", seed))


def read_picture(path: Path, seed: int) -> Callable[[], object]:
    chance = random.Random(seed)
    noise = np.random.default_rng(seed).integers(
        0, 256, (chance.randrange(1, 60), chance.randrange(1, 60), 4), np.uint8
    )
    kind = chance.choice(["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF"])
    mode = chance.choice(["RGB", "L"] if kind in ("JPEG", "PPM", "AVIF") else ["RGB", "L", "RGBA"])
    stream = io.BytesIO()
    compression = {"compression": chance.choice(["tiff_lzw", "tiff_deflate", "packbits"])} if kind == "TIFF" else {}
    Image.fromarray(noise).convert(mode).save(stream, kind, **compression)
    path.write_bytes(damaged(stream.getvalue(), chance) if chance.random() < 0.95 else stream.getvalue())
    reading = Reading(chance.choice([1, 3, 4]), without_end=chance.random() < 0.5)

    def action() -> None:
        form = ImageForm((8, 8), "pad", reading.channels)
        assert len(check_images([(path,)], form, threads=1)) == 1
        assert len(read_image_stats([(path,)], reading, threads=1)) == 1
        image = read_image((path,), reading)
        assert image.dtype == np.uint8
        assert image.shape[2] == reading.channels

    return action


@shares(60, 500)
def test_images(place: Path, count: int) -> None:
    all_of(count, place, lambda seed: read_picture(place / "image", seed))


BASE = yaml.safe_load((PROJECT / "configs" / "base.yaml").read_text())
_NESTED = [f"{key}: &{key} [{', '.join(['*' + chr(ord(key) - 1)] * 9)}]\n" for key in "bcdefghi"]
_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(_NESTED)
BOMBS = (
    _BOMB,
    "a: &a [*a]\n",
    "[" * 5000,
    "train: " + "{a: " * 3000,
    "train: {epochs: 2024-13-45}\n",
    "train: {epochs: !!int x, lr: !!float y, seed: !!timestamp z}\n",
    "train: !!python/object/apply:os.system [touch ../outside/made]\n",
    "? [1, 2]\n: 3\n",
    'competition: {id: "\\ud800", root: "a\\0b"}\n',
    "train: {seed: " + "9" * 5000 + "}\n",
    "a: &a {b: 1}\ntrain: {<<: [*a, *a, *a]}\n",
    "train:\n  epochs: 1\n  epochs: 2\n",
)


def read_settings(path: Path, seed: int) -> Callable[[], object]:
    chance = random.Random(seed)
    whole = yaml.safe_dump(
        mutated(mutated(BASE, chance), chance) if chance.random() < 0.9 else BASE, allow_unicode=True
    )
    path.write_text(chance.choice(BOMBS) if seed % 10 == 0 else whole, encoding="utf-8", errors="replace")
    if seed % 10 == 1:
        path.write_bytes(damaged(whole.encode(errors="replace"), chance))
    key = chance.choice(["train.epochs", "images.size", "competition.labels", "search.space.x", "a..b", text(chance)])
    overrides = [f"{key}={chance.choice([text(chance), str(value(chance))])}"] if chance.random() < 0.3 else []

    def action() -> None:
        config = load_config(path, overrides)
        assert check_config(parse_yaml(dump_config(config)), source="again", complete=True) == config
        parse_views(config.predict.tta, size=config.images.height_width)
        get_metric(config.competition.metric, ("a", "b"))
        build_loss(config.loss, labels=("a", "b"))
        submission_form(config.submission, config.competition, ("a", "b"))

    return action


@shares(8, 300)
def test_configs(place: Path, count: int) -> None:
    all_of(count, place, lambda seed: read_settings(place / "config.yaml", seed))


def damage_run(run: Path, seed: int) -> None:
    """Damage one file of a run, or put a link or a folder in its place."""
    chance = random.Random(seed)
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.suffix != ".lock")
    path = chance.choice(files)
    data = path.read_bytes()
    kind = chance.randrange(8)
    if kind == 0:
        path.unlink()
        path.symlink_to(run.parents[2] / "outside" / "secret.txt")
    elif kind == 1:
        path.unlink()
        path.mkdir()
    elif kind == 2:
        path.write_bytes(chance.choice(files).read_bytes())
    elif path.suffix == ".json" and kind < 7:
        path.write_text(json.dumps(mutated(json.loads(data), chance)), errors="replace")
    elif path.suffix == ".yaml" and kind < 7:
        path.write_text(yaml.safe_dump(mutated(yaml.safe_load(data), chance)), errors="replace")
    elif path.suffix == ".safetensors" and kind < 6:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        header["__metadata__"]["facts"] = json.dumps(mutated(json.loads(header["__metadata__"]["facts"]), chance))
        written = json.dumps(header).encode()
        path.write_bytes(len(written).to_bytes(8, "little") + written + data[8 + size :])
    else:
        path.write_bytes(damaged(data, chance))


@shares(2, 100)
def test_run_folders(place: Path, count: int) -> None:
    make_wide_competition(place / "data")
    (place / "tiny.yaml").write_text(TINY)
    words = ["tiny.yaml", "train.epochs=1"]
    assert run_cv.command(words) == 0
    shutil.copytree("runs/tiny", "whole")

    def make(seed: int) -> Callable[[], object]:
        shutil.rmtree("runs")
        shutil.copytree("whole", "runs/tiny")
        damage_run(place / "runs" / "tiny", seed)

        def action() -> None:
            refused: list[PipelineError] = []
            run = RunFolder.at(Path("runs/tiny"))
            for step in (
                lambda: submit([open_run(run)], views=None, out=None, images=None, sample=None),
                lambda: run_cv.main(run_cv.parse_arguments(words), ""),
                lambda: draw_curves(read_epochs(run)),
            ):
                try:
                    step()
                except PipelineError as error:
                    refused.append(error)
            if refused:
                raise max(refused, key=lambda error: len(str(error)))

        return action

    all_of(count, place, make)
    assert os.listdir("../outside") == ["secret.txt"]
