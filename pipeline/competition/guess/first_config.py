"""A first config for a new competition, guessed from its training table and a folder of images.

Each guess rests on cells or files, and has a sentence with this evidence that a person can check.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pipeline.competition.csvs import Dialect, read_cells, read_header
from pipeline.competition.guess.files import FileRule, describe_rule, guess_file_rule, image_files
from pipeline.competition.guess.labels import LabelGuess, LongGuess, guess_labels, guess_long, guess_rows
from pipeline.competition.guess.submission import SubmissionGuess, guess_submission
from pipeline.errors import CompetitionError, ConfigError, listing
from pipeline.events import Listener, Note, ignore, notes_into
from pipeline.files import write_text

_GROUPS = re.compile(r"patient|group|subject|series|study|clip|video|site|block|sheet|session", re.IGNORECASE)
_NO_COLUMN = "\0"  # a name that no column has


@dataclass(frozen=True)
class Guess:
    """A guessed config.

    Attributes:
        config: the sections of a config file.
        reasons: the evidence, one sentence per guess.
    """

    config: dict[str, Any]
    reasons: tuple[str, ...]


def new_config(train: Path, images: Path, *, out: Path | None, listen: Listener) -> Path:
    """Guess a config, write it, and return its path; `listen` gets a note with the evidence for each guess.

    The path is `out`, or by default `configs/<name of the competition's folder>.yaml`.

    Raises:
        CompetitionError: as `guess_config`.
        ConfigError: the file exists already.
    """
    guess = guess_config(train, images)
    path = out or Path("configs") / f"{Path(guess.config['competition']['root']).absolute().resolve().name}.yaml"
    if path.exists():
        raise ConfigError(f"{path} is there already", remedy="give another name with --out FILE")
    write_text(path, config_text(guess, train=train, images=images, path=path))
    for reason in guess.reasons:
        listen(Note(f"guessed: {reason}"))
    return path


def guess_config(train: Path, images: Path) -> Guess:
    """Guess a config for the table `train` and the images below `images`.

    Raises:
        CompetitionError: the table cannot be read, there are no images, or no column leads to images or holds labels.
    """
    reasons: list[str] = []
    root = Path(os.path.commonpath([train.absolute().parent, images.absolute()]))
    frame, quoting = _read(train, reasons)
    columns = {name: frame[name].tolist() for name in frame.columns}
    rule, long = _file_rule(columns, train, images, root)
    reasons.append(describe_rule(rule, len(frame) if long is None else len(long.ids)))
    id_column = _id_column(columns, rule, reasons)
    groups = _group_column(columns, {id_column, rule.column}, reasons)
    known = () if long is None else long.labels.labels
    sample = guess_submission(train.absolute().parent, root, id_column, rule, known)
    others = {name: cells for name, cells in columns.items() if name not in {id_column, rule.column, groups}}
    labels = _labels(others, columns[id_column], sample, train) if long is None else long.labels
    form, why = sample.form_for(labels)
    reasons += [*labels.reasons, *sample.reasons, why]
    reasons.append("competition.metric: no file names it; f1_macro until you set the scorer's")
    competition = {
        "root": os.path.relpath(root),
        "train": train.absolute().relative_to(root).as_posix(),
        **quoting,
        "id": id_column,
        "images": rule.images,
        **({"labels": labels.section} if labels.section else {}),
        **({"groups": {"column": groups}} if groups is not None else {}),
        **sample.competition,
        "metric": "f1_macro",
    }
    config = {
        "competition": competition,
        **({"images": {"channels": rule.channels}} if rule.channels > 1 else {}),
        "submission": {"format": form, **({"empty": "argmax"} if form == "delimited" else {})},
    }
    return Guess(config, tuple(reasons))


def config_text(guess: Guess, *, train: Path, images: Path, path: Path) -> str:
    """The text of the config file, with the evidence as comments on top."""
    body = yaml.safe_dump(guess.config, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
    lines = [
        f"# Guessed from {train} and the images in {images}. Check each line before you rely on it:",
        *(f"#   {reason}" for reason in guess.reasons),
        f"#   python run_cv.py {path} --debug",
    ]
    return "\n".join(lines) + "\n" + body


def _read(train: Path, reasons: list[str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """The table, and the config key that is needed if its quotes are plain characters."""
    try:
        return _read_as(train, Dialect(), notes_into(reasons)), {}
    except CompetitionError as error:
        try:
            frame = _read_as(train, Dialect(quoting="none"), ignore)
        except CompetitionError:
            raise error from None
    reasons.append(
        "quoting: rows are even only if quotes are plain characters and the last column takes the rest of a line"
    )
    return frame, {"quoting": "none"}


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
    columns: dict[str, list[str]], train: Path, images: Path, root: Path
) -> tuple[FileRule, LongGuess | None]:
    """The rule from cells to files; and the long table, if only the id part of its keys leads to files."""
    files = image_files(images, root)
    folder = train.absolute().parent.relative_to(root).as_posix()
    rule, long = guess_file_rule(columns, files, csv_folder="" if folder == "." else folder), None
    if rule is None:
        long = guess_long(columns, train)
        rule = None if long is None else guess_file_rule({long.key: long.ids}, files, csv_folder="")
    if rule is None:
        raise CompetitionError(
            f"{train}: no column leads to the {len(files)} images below {images}",
            expected="a column with file names, paths, names without extension, or numbers",
            got=f"columns {listing(columns, 12)} and files such as {listing(files, 3)}",
            remedy="give the folder of these images, or write the config by hand; configs/base.yaml explains images",
        )
    return rule, long


def _labels(columns: dict[str, list[str]], ids: list[str], sample: SubmissionGuess, train: Path) -> LabelGuess:
    one_row_each = len(set(ids)) == len(ids)
    labels = guess_labels(columns, sample=sample.columns) if one_row_each else guess_rows(columns, ids)
    if labels is None:
        raise CompetitionError(
            f"{train}: no column looks like labels",
            expected="columns of 0 and 1, or one column with names joined by a separator",
            got=f"columns {listing(columns, 12)}",
            remedy="write the config by hand; configs/base.yaml explains all label formats",
        )
    return labels


def _group_column(columns: dict[str, list[str]], taken: set[str], reasons: list[str]) -> str | None:
    """The first column with a name such as patient or site whose values recur."""
    for name, cells in columns.items():
        if name not in taken and _GROUPS.search(name) and 1 < len(set(cells)) < len(cells):
            reasons.append(f"groups: '{name}' has {len(set(cells))} values in {len(cells)} rows")
            return name
    return None
