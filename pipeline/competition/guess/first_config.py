"""A first config for a new competition, guessed from its training table and a folder of images.

Each guess rests on cells or files, and has a sentence with this evidence that a person can check.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import yaml

from pipeline.competition.csvs import Dialect, read_cells, read_header
from pipeline.competition.guess.annotations import guess_annotations
from pipeline.competition.guess.files import FileRule, describe_rule, guess_file_rule, image_files
from pipeline.competition.guess.groups import guess_groups
from pipeline.competition.guess.guess import Guess
from pipeline.competition.guess.labels import LabelGuess, LongGuess, guess_labels, guess_long, guess_rows
from pipeline.competition.guess.submission import SubmissionGuess, Table, find_sample, guess_submission, read_tables
from pipeline.competition.paths import split_extension
from pipeline.errors import CompetitionError, listing
from pipeline.events import Listener, ignore, notes_into

_NO_COLUMN = "\0"  # a name that no column has
_RECIPE = "recipe: auto  # finetune_cnn; a transformer: finetune_vit; pretrained: false: from_scratch; docs/recipes.md"
_TURNS = "# augment: {train: [{D4: {p: 1}}, {RandomBrightnessContrast: {p: 0.5}}]}  # for images from above: all turns"


def guess_config(train: Path, images: Path) -> Guess:
    """Guess a config for a table, a COCO annotation JSON or a folder of class files, and the images below `images`.

    Raises:
        CompetitionError: the table cannot be read, there are no images, or no column leads to images or holds labels.
    """
    if train.is_dir() or train.suffix.lower() == ".json":
        return guess_annotations(train, images)
    reasons: list[str] = []
    root = Path(os.path.commonpath([train.absolute().parent, images.absolute()]))
    frame, reading = _read(train, images, reasons)
    columns = {name: frame[name].tolist() for name in frame.columns}
    own = [cells for cells in columns.values() if all(cell.startswith(f"{root.name}/") for cell in cells)]
    if own and not (root / own[0][0]).exists():
        root = root.parent  # the paths in the table begin with the competition's own folder
    tables = read_tables(train)
    sample_table = find_sample(tables, columns)
    in_test = {name for table in tables if "test" in table.path.name.lower() for name in table.columns}
    rule, long = _file_rule(columns, train, images, root, in_test, tables)
    reasons.append(describe_rule(rule, len(frame) if long is None else len(long.ids)))
    _note_more_images(columns, rule, image_files(images, root), root, reasons)
    id_column = _id_column(columns, rule, reasons)
    asked = () if sample_table is None else sample_table.columns
    groups, group_column = guess_groups(columns, id_column, rule, asked, reasons)
    known = () if long is None else long.labels.labels
    sample = guess_submission(sample_table, tables, root, id_column, rule, known)
    others = {name: cells for name, cells in columns.items() if name not in {id_column, rule.column, group_column}}
    others = {name: cells for name, cells in others.items() if not _are_paths(cells)}
    labels = _labels(others, columns[id_column], sample, train, tables) if long is None else long.labels
    submission, why = sample.section_for(labels)
    reasons += [*labels.reasons, *sample.reasons, why]
    of_test = sample.competition
    if sample.has_other_cells(labels):
        of_test, header, why = sample.only_header(id_column)
        submission |= header
        reasons.append(why)
    reasons.append("competition.metric: no file names it; f1_macro until you set the scorer's")
    competition = {
        "root": os.path.relpath(root),
        "train": train.absolute().relative_to(root).as_posix(),
        **reading,
        "id": id_column,
        "images": rule.images,
        **({"labels": labels.section} if labels.section else {}),
        **({"groups": groups} if groups is not None else {}),
        **of_test,
        "metric": "f1_macro",
    }
    config = {"competition": competition, **_image_sections(rule), "submission": submission}
    return Guess(config, tuple(reasons))


def _image_sections(rule: FileRule) -> dict[str, Any]:
    """The number of channels, and an augmentation that works with it: one of colours needs 1 or 3 channels."""
    if rule.channels == 1:
        return {}
    affine = {"scale": [0.85, 1.15], "translate_percent": [-0.08, 0.08], "rotate": [-15, 15], "p": 0.7}
    train = [] if rule.channels in (1, 3) else [{"HorizontalFlip": {"p": 0.5}}, {"Affine": affine}]
    return {"images": {"channels": rule.channels}, **({"augment": {"train": train}} if train else {})}


def config_text(guess: Guess, *, train: Path, images: Path, path: Path) -> str:
    """The text of the config file, with the evidence as comments on top."""
    body = yaml.safe_dump(guess.config, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
    lines = [
        f"# Guessed from {train} and the images in {images}. Check each line before you rely on it:",
        *(f"#   {reason}" for reason in guess.reasons),
        f"#   python run_cv.py {path} --debug",
        _RECIPE,
        *([] if "augment" in guess.config else [_TURNS]),
    ]
    return "\n".join(lines) + "\n" + body


def _read(train: Path, images: Path, reasons: list[str]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table, and the config keys that are needed if it has no header or its quotes are plain characters."""
    found: dict[str, Any] = {}
    dialect = Dialect()
    try:
        frame = _read_as(train, dialect, notes_into(reasons))
    except CompetitionError as error:
        dialect = Dialect(quoting="none")
        try:
            frame = _read_as(train, dialect, ignore)
        except CompetitionError:
            raise error from None
        found = {"quoting": "none"}
        reasons.append(
            "quoting: rows are even only if quotes are plain characters and the last column takes the rest of a line"
        )
    stems = {file.stem for file in image_files(images, images)}
    lead = [name for name in frame.columns if PurePosixPath(name).stem in stems or PurePosixPath(name).name in stems]
    if not lead:
        return frame, found
    header = ["id" if name == lead[0] else f"column_{number}" for number, name in enumerate(frame.columns, start=1)]
    reasons.append(f"header: '{lead[0]}' in the first row is an image, so the table has no header; rename its columns")
    return _read_as(train, replace(dialect, header=tuple(header)), ignore), {**found, "header": header}


def _read_as(train: Path, dialect: Dialect, listen: Listener) -> pd.DataFrame:
    header = read_header(train, id_column=_NO_COLUMN, key="the table", dialect=dialect, listen=ignore)
    return read_cells(train, id_column=header[0], key="the table", dialect=dialect, listen=listen)


def _id_column(columns: dict[str, list[str]], rule: FileRule, reasons: list[str]) -> str:
    """The column of a file rule with a template, else a column of unique values, preferably one called id."""
    unique = [name for name, cells in columns.items() if len(set(cells)) == len(cells)]
    if "template" in rule.images or not unique:
        return rule.column
    others = [name for name in unique if name != rule.column]
    called = [name for name in others if re.search(r"(^|_| )(id|index|name)($|_| )", name, re.IGNORECASE)]
    found = (called or others or [rule.column])[0]
    reasons.append(f"id: '{found}' has another value in each row")
    return found


def _file_rule(
    columns: dict[str, list[str]], train: Path, images: Path, root: Path, in_test: set[str], tables: Sequence[Table]
) -> tuple[FileRule, LongGuess | None]:
    """The rule from cells to files; and the long table, if only the id part of its keys leads to files."""
    files = image_files(images, root)
    folder = train.absolute().parent.relative_to(root).as_posix()
    below = "" if folder == "." else folder
    rule, long = guess_file_rule(columns, files, csv_folder=below, root=root, in_test=in_test), None
    if rule is None:
        long = guess_long(columns, train)
        rule = None if long is None else guess_file_rule({long.key: long.ids}, files, csv_folder="", root=root)
    if rule is None:
        _refuse_bags(columns, tables, files, below, root, train)
        raise CompetitionError(
            f"{train}: no column leads to the {len(files)} images below {images}",
            expected="a column with file names, paths, names without extension, or numbers",
            got=f"columns {listing(columns, 12)} and files such as {listing(files, 3)}",
            remedy="give the folder of these images, or write the config by hand; configs/base.yaml explains images",
        )
    return rule, long


def _note_more_images(
    columns: dict[str, list[str]], rule: FileRule, files: Sequence[PurePosixPath], root: Path, reasons: list[str]
) -> None:
    """Note columns that lead to other images, such as a second view of each row."""
    stems = {  # without zeros in front, which the names of files may have and numbers in a table may lack
        name: {split_extension(PurePosixPath(cell).name)[0].lstrip("0") for cell in columns[name]} for name in columns
    }
    taken = stems.get(rule.column, set())
    more = [
        name
        for name, cells in columns.items()
        if not stems[name] & taken and guess_file_rule({name: cells}, files, csv_folder="", root=root) is not None
    ]
    if taken and more:
        reasons.append(f"images: {listing(more)} lead to other images, which are not used; one image a row is trained")


def _refuse_bags(
    columns: dict[str, list[str]],
    tables: Sequence[Table],
    files: Sequence[PurePosixPath],
    below: str,
    root: Path,
    train: Path,
) -> None:
    """Raise CompetitionError if another table leads to the images and shares a key with the training table."""
    for table in tables:
        cells = {name: table.frame[name].tolist() for name in table.columns}
        shared = [name for name in table.columns if name in columns]
        rule = guess_file_rule(cells, files, csv_folder=below, root=root) if shared else None
        if rule is not None:
            key, name = shared[0], table.path.relative_to(root).as_posix()
            raise CompetitionError(
                f"{train}: its labels are of bags of images ('{key}'), and {table.path.name} names the images of each",
                expected="a row with labels for each image",
                remedy=f"to train each image on the labels of its bag, set competition.train: {name}, "
                f"competition.join: {{file: {train.absolute().relative_to(root).as_posix()}, on: {key}}} and "
                f"competition.groups: {{column: {key}}}; a submission about whole bags cannot be made",
            )


def _labels(
    columns: dict[str, list[str]], ids: list[str], sample: SubmissionGuess, train: Path, tables: Sequence[Table]
) -> LabelGuess:
    one_row_each = len(set(ids)) == len(ids)
    labels = guess_labels(columns, sample=sample.columns) if one_row_each else guess_rows(columns, ids)
    if labels is None:
        same = [table.path.name for table in tables if {*table.frame[table.columns[0]]} == {*ids}]
        raise CompetitionError(
            f"{train}: no column looks like labels",
            expected="columns of 0 and 1, or one column with names joined by a separator",
            got=f"beside ids, paths and groups the columns {listing(columns, 12) or '(none)'}",
            remedy=f"give {train.with_name(same[0])}, which has the same ids"
            if same
            else "write the config by hand; configs/base.yaml explains all label formats",
        )
    return labels


def _are_paths(cells: list[str]) -> bool:
    """Whether all cells are names of image files."""
    return all(split_extension(cell.strip())[1] for cell in cells)
