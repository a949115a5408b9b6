"""COCO: an annotation JSON with images, objects and categories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from pipeline.competition.csvs import read_text
from pipeline.competition.labels.rows import LabelledRows, Source, settle_labels
from pipeline.config import CocoLabels
from pipeline.errors import CompetitionError, listing
from pipeline.events import Note

_Id = int | str


class _Image(BaseModel):
    id: _Id
    file_name: str


class _Annotation(BaseModel):
    image_id: _Id
    category_id: _Id


class _Category(BaseModel):
    id: _Id
    name: str


class _CocoFile(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read_coco(config: CocoLabels, source: Source) -> LabelledRows:
    """Read the images of an annotation JSON, with or without objects; the frame has their `file_name`.

    Labels are in the order of the category ids, which may have gaps.

    Raises:
        CompetitionError: the file is no such JSON, an id or a category name repeats, or an object has an unknown image
            or category.
    """
    content = _parse(source)
    path = source.path
    _refuse_repeats([str(image.id) for image in content.images], "image ids", path)
    _refuse_repeats([str(category.id) for category in content.categories], "category ids", path)
    _refuse_repeats([category.name for category in content.categories], "category names", path)
    categories = sorted(content.categories, key=lambda category: (isinstance(category.id, str), category.id))
    labels = settle_labels([category.name for category in categories], config.classes, source)
    ids = [_key(image, config) for image in content.images]
    _refuse_repeats(ids, f"ids (labels.key: {config.key})", path)
    row = {image.id: number for number, image in enumerate(content.images)}
    column = {category.id: labels.index(category.name) for category in categories}
    _refuse_unknown([object_.image_id for object_ in content.annotations], row, "image", path)
    _refuse_unknown([object_.category_id for object_ in content.annotations], column, "category", path)
    targets = np.zeros((len(ids), len(labels)), dtype=np.float32)
    for object_ in content.annotations:
        targets[row[object_.image_id], column[object_.category_id]] = 1.0
    frame = pd.DataFrame({source.competition.id: ids}, dtype=str)
    if source.competition.id != "file_name":
        frame["file_name"] = [image.file_name for image in content.images]
    empty = int((targets.sum(axis=1) == 0).sum())
    if empty:
        source.listen(Note(f"{path}: {empty} images have no object and so no label"))
    return LabelledRows(frame, labels, targets)


def _parse(source: Source) -> _CocoFile:
    text = read_text(source.path, key=source.key, encoding="utf-8", listen=source.listen)
    try:
        content = _CocoFile.model_validate_json(text)
    except ValidationError as error:
        first: Any = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CompetitionError(
            f"{source.path}: not a COCO annotation file",
            expected="a JSON object with the lists images, annotations and categories",
            got=f"{where}: {first['msg']}" if where else str(first["msg"]),
            remedy=f"let {source.key} name the annotation JSON, or correct it",
        ) from None
    if not content.images:
        raise CompetitionError(f"{source.path}: there are no images in it", remedy="give the complete file")
    return content


def _key(image: _Image, config: CocoLabels) -> str:
    if config.key == "id":
        return str(image.id)
    return PurePosixPath(image.file_name).stem if config.key == "stem" else image.file_name


def _refuse_repeats(names: Sequence[str], what: str, path: Path) -> None:
    repeated = sorted({name for name in names if not name.strip()}) or list(_repeated(names))
    if repeated:
        raise CompetitionError(
            f"{path}: the {what} are not all distinct, non-blank texts",
            got=listing(repr(name) for name in repeated),
            remedy="correct the file, or choose another competition.labels.key",
        )


def _repeated(names: Sequence[str]) -> dict[str, None]:
    seen: set[str] = set()
    return {name: None for name in names if name in seen or seen.add(name)}  # type: ignore[func-returns-value]


def _refuse_unknown(used: Sequence[_Id], known: dict[_Id, int], what: str, path: Path) -> None:
    unknown = {id_ for id_ in used if id_ not in known}
    if unknown:
        raise CompetitionError(
            f"{path}: objects have {len(unknown)} unknown {what} ids: {listing(sorted(map(str, unknown)))}",
            expected=f"only the {len(known)} ids in the list of this file",
            remedy="give the complete annotation file",
        )
