"""One file per label: VOC's `id value` lines, or plain lists of the positive ids."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.competition.csvs import read_text
from pipeline.competition.labels.cells import MISSING, UNCERTAIN, CellRules, settle_codes
from pipeline.competition.labels.rows import LabelledRows, Source, in_order, settle_labels
from pipeline.config import PerClassLabels, VocLabels
from pipeline.errors import CompetitionError, listing
from pipeline.events import Note

_VOC_CODES = {"-1": 0.0, "1": 1.0, "0": UNCERTAIN}  # 0 is an object that is difficult to see


def read_voc(config: VocLabels, source: Source) -> LabelledRows:
    """Read a folder of VOC class files: images in the order of their first lines, labels in alphabetical order.

    Raises:
        CompetitionError: there are no such files, a line is not `id value`, or an id is twice in a file.
    """
    files = _files_by_label(f"{{label}}_{config.split}.txt", source.path, source)
    labels = settle_labels(in_order(files), config.classes, source)
    values = {label: _voc_lines(files[label], source) if label in files else {} for label in labels}
    ids = list(dict.fromkeys(id_ for column in values.values() for id_ in column))
    if not ids:
        raise CompetitionError(f"{source.path}: the class files have no lines", remedy="give the complete files")
    row = {id_: number for number, id_ in enumerate(ids)}
    codes = np.full((len(ids), len(labels)), MISSING, dtype=np.float32)
    for column, label in enumerate(labels):
        codes[[row[id_] for id_ in values[label]], column] = list(values[label].values())
    targets = settle_codes(
        codes,
        labels,
        CellRules(uncertain=config.uncertain, missing=config.missing),
        name_cell=lambda at, column: (
            f"{ids[at]}/{labels[column]} {'has no line' if codes[at, column] == MISSING else '= 0'}"
        ),
        path=source.path,
        listen=source.listen,
    )
    return LabelledRows(pd.DataFrame({source.competition.id: ids}, dtype=str), labels, targets)


def read_per_class(config: PerClassLabels, source: Source) -> LabelledRows:
    """Read a table of ids, and one file of positive ids per label; labels are in alphabetical order.

    Ids that are not in the table are counted and left out. Blank lines and a first line `id` are skipped.

    Raises:
        CompetitionError: there are no such files, or none of the ids in a file is in the table.
    """
    frame = source.table()
    ids = frame[source.competition.id].tolist()
    files = _files_by_label(config.files, source.root, source)
    labels = settle_labels(in_order(files), config.classes, source)
    row = {id_: number for number, id_ in enumerate(ids)}
    targets = np.zeros((len(ids), len(labels)), dtype=np.float32)
    for column, label in enumerate(labels):
        positive = _listed_ids(files[label], source) if label in files else []
        known = [id_ for id_ in positive if id_ in row]
        if label not in files:
            source.listen(Note(f"there is no file for the label '{label}': it has no positives"))
        elif len(known) < len(positive):
            _note_unknown_ids(files[label], positive, row, source)
        targets[[row[id_] for id_ in known], column] = 1.0
    return LabelledRows(frame, labels, targets)


def _files_by_label(template: str, folder: Path, source: Source) -> dict[str, Path]:
    """{label: file} for all files that match `template`, relative to `folder`."""
    before, _, after = template.partition("{label}")
    pattern = f"{glob.escape(before)}*{glob.escape(after)}"
    found = sorted(glob.glob(pattern, root_dir=folder, include_hidden=True))
    found = [name for name in found if not _is_from_mac(folder / name)]
    files = {name.removeprefix(before).removesuffix(after): folder / name for name in found}
    files = {label: path for label, path in files.items() if label and path.is_file()}
    if not files:
        raise CompetitionError(
            f"{folder}: there is no file of the form {template}",
            remedy=f"correct {source.key}, competition.root or competition.labels",
        )
    return files


def _is_from_mac(path: Path) -> bool:
    """Whether a Mac wrote the file `._cat.txt` beside `cat.txt`; the label itself may begin with a dot."""
    return path.name.startswith("._") and path.with_name(path.name[2:]).exists()


def _lines(path: Path, source: Source) -> list[str]:
    text = read_text(path, key="competition.labels", encoding=source.competition.encoding, listen=source.listen)
    return [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip()]


def _voc_lines(path: Path, source: Source) -> dict[str, float]:
    values: dict[str, float] = {}
    for line in _lines(path, source):
        id_, *value = line.rsplit(maxsplit=1)
        if len(value) != 1 or value[0] not in _VOC_CODES or id_ in values:
            raise CompetitionError(
                f"{path}: not a VOC class file" if id_ not in values else f"{path}: '{id_}' occurs twice",
                expected="lines of an id and -1, 0 or 1, each id once",
                got=line[:80],
                remedy="correct this line",
            )
        values[id_] = _VOC_CODES[value[0]]
    return values


def _listed_ids(path: Path, source: Source) -> list[str]:
    lines = _lines(path, source)
    return lines[1:] if lines[:1] == [source.competition.id] else lines


def _note_unknown_ids(path: Path, positive: Sequence[str], known: dict[str, int], source: Source) -> None:
    strangers = [id_ for id_ in positive if id_ not in known]
    if len(strangers) == len(positive):
        raise CompetitionError(
            f"{path}: none of its {len(positive)} ids is in {source.path}",
            expected=f"ids such as {listing(known, 3)}, one per line",
            got=listing(strangers, 3),
            remedy="correct competition.labels.files or competition.id",
        )
    source.listen(
        Note(f"{path}: {len(strangers)} ids are not in {source.path} and are left out: {listing(strangers, 3)}")
    )
