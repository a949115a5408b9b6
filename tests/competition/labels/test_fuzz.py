"""A thousand damaged tables and annotation files: read as something that holds together, or one clear error."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.competition.labels import read_labels
from pipeline.errors import PipelineError
from pipeline.events import ignore
from tests.competition.labels.competition import competition

TABLES: dict[str, tuple[str, dict[str, Any]]] = {
    "wide": (
        "id,cat,ETT - Abnormal,site\n007,1,0,A\n1.2.8,0,-1,B\n고양이,,1,C\n",
        {"columns": ["cat", "ETT - Abnormal"], "uncertain": "ignore", "missing": "zeros"},
    ),
    "delimited": ("id,tags,text\na.jpg,cat|dog,\"x, y\"\nb.jpg,,z\nc.jpg,dog,é\n", {
        "format": "delimited", "column": "tags", "separator": "|", "classes": ["cat", "dog"]}),
    "lists": ("id,tags\na,\"['cat', 'dog']\"\nb,[]\nc,\"[\"\"dog\"\"]\"\n", {
        "format": "delimited", "column": "tags", "cells": "list"}),
    "long": ("id,v\nx_1_cat,1\nx_1_dog,0\nx_2_cat,0\nx_2_dog,1\nx_2_dog,1\n", {"format": "long", "column": "v"}),
    "two columns": ("id,what,box\nx,cat,1 2\nx,dog,3 4\ny,,\n", {"format": "long", "label_column": "what"}),
    "coco": (
        json.dumps({
            "images": [{"id": 3, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
            "annotations": [{"image_id": 9, "category_id": 5}],
            "categories": [{"id": 5, "name": "cat"}, {"id": 7, "name": "dog"}],
        }),
        {"format": "coco"},
    ),
}  # fmt: skip
LETTERS = b",;\t\"'_|[]{}01 \0\xff\xe9\r\n"
PIECES = [
    *(bytes([letter]) for letter in LETTERS),
    b"\r\n",
    b"\xb0\xa1",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"-1",
    b"NaN",
    b"id",
]
PER_TABLE = 170


def _damaged(data: bytes, dice: random.Random) -> bytes:
    for _ in range(dice.randint(1, 2)):
        place, end = sorted((dice.randint(0, len(data)), dice.randint(0, len(data))))
        end = min(end, place + 12)
        piece = dice.choice(PIECES)
        data = dice.choice([
            data[:place] + piece + data[place:],
            data[:place] + piece + data[place + len(piece) :],
            data[:place] + data[end:],
            data[:place] + data[place:end] * 2 + data[end:],
            data[:place],
        ])  # fmt: skip
    return data


@pytest.mark.parametrize("name", TABLES)
def test_a_damaged_file_is_refused_or_holds_together(tmp_path: Path, name: str) -> None:
    text, labels = TABLES[name]
    path, dice = tmp_path / "train", random.Random(name)
    read, refused = 0, 0
    for _ in range(PER_TABLE):
        path.write_bytes(_damaged(text.encode(), dice))
        try:
            rows = read_labels(competition(tmp_path, labels), path, key="competition.train", listen=ignore)
        except PipelineError:
            refused += 1
            continue
        read += 1
        ids = rows.frame["id"].tolist()
        assert rows.targets.shape == (len(ids), len(rows.labels))
        assert rows.targets.dtype == np.float32
        assert len(set(ids)) == len(ids) > 0
        assert all(id_ == id_.strip() != "" for id_ in ids)
        assert len(set(rows.labels)) == len(rows.labels) > 0
        known = rows.targets[~np.isnan(rows.targets)]
        assert np.isin(known, (0.0, 1.0)).all()
    assert min(read, refused) >= 3, (read, refused)  # the damage is neither always fatal nor always harmless
