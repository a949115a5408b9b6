"""A first config for annotations that are no CSV: a COCO JSON, VOC class files, or a file of ids per class."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.competition.guess.class_tables import class_parts
from pipeline.competition.guess.files import image_files
from pipeline.competition.guess.guess import Guess
from pipeline.competition.paths import is_visible
from pipeline.errors import CompetitionError, listing
from pipeline.machine import regular

_COCO = ("images", "annotations", "categories")
_NO_SAMPLE = "submission: there is no sample to follow; a column per label is written"


def guess_annotations(train: Path, images: Path) -> Guess:
    """Guess a config for an annotation JSON or a folder of class files.

    Raises:
        CompetitionError: the JSON is not COCO, or the folder holds no class files.
    """
    root = Path(os.path.commonpath([train.absolute().parent, images.absolute()]))
    files = image_files(images, root)
    labels, more, reason = _coco(train) if train.is_file() else _class_files(train, files)
    section = _image_section(files, more.pop("names", None))
    competition = {
        "root": os.path.relpath(root),
        "train": train.absolute().relative_to(root).as_posix(),
        "sample_submission": None,
        "images": section,
        "labels": labels,
        **more,
        "metric": "map",
    }
    return Guess({"competition": competition, "submission": {"format": "wide_probability"}}, (reason, _NO_SAMPLE))


def _image_section(files: list[PurePosixPath], names: list[str] | None) -> dict[str, Any]:
    folders = sorted({str(file.parent) for file in files})
    if names is not None:
        held = [folder for folder in folders if folder != "."]
        prefixes = {
            str(file).removesuffix(f"/{name}") for name in names[:1] for file in files if str(file).endswith(f"/{name}")
        }
        return {"column": "file_name", "folders": sorted(prefixes) or held or ["."]}
    endings = {file.suffix for file in files}
    template = "{id}" + (endings.pop() if len(endings) == 1 else "")
    if len(folders) == 1:
        return {"template": template if folders[0] == "." else f"{folders[0]}/{template}"}
    return {"template": template, "folders": folders}


def _coco(train: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    try:
        content = json.loads(regular(train).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CompetitionError(f"{train}: not a JSON file: {error}", remedy="give a table or a COCO file") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in _COCO):
        got = f"an object with {listing(content, 8)}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise CompetitionError(
            f"{train}: a JSON of a kind that is not known",
            expected="a COCO file: an object with the lists images, annotations and categories",
            got=got,
            remedy="write its labels as a CSV with a row per image, and give that file",
        )
    names = [str(image.get("file_name", "")) for image in content["images"] if isinstance(image, dict)]
    reason = f"labels: {train.name} is a COCO file of {len(names)} images and {len(content['categories'])} categories"
    return {"format": "coco"}, {"id": "file_name", "names": names}, reason


def _class_files(train: Path, files: list[PurePosixPath]) -> tuple[dict[str, Any], dict[str, Any], str]:
    splits: dict[str, int] = {}
    for path in train.glob("*_*.txt"):
        if (
            is_visible(path.name)
            and path.is_file()
            and re.fullmatch(r"(\S+\s+-?[01]\s*)+", path.read_text(encoding="utf-8", errors="replace"))
        ):
            split = path.stem.rpartition("_")[2]
            splits[split] = splits.get(split, 0) + 1
    if splits:
        split = max(splits, key=lambda name: (splits[name], name == "trainval"))
        reason = f"labels: {splits[split]} files <label>_{split}.txt with lines of an id and -1, 0 or 1, as in VOC"
        return {"format": "voc", "split": split}, {}, reason
    names = sorted(path.name for path in train.iterdir())
    classes = [path for path in class_parts(train) if path.stem not in {file.stem for file in files}]  # else per image
    command = shlex.join(["python", "-m", "pipeline", "table", str(train), "--out", f"{train}_labels.csv"])
    raise CompetitionError(
        f"{train}: the folder holds no class files that are known",
        expected="files <label>_<split>.txt with lines of an id and -1, 0 or 1",
        got=listing(names) or "an empty folder",
        remedy=f"{command} writes one table of its {len(classes)} classes; give that table"
        if classes
        else "give a table with a row per image",
    )
