"""One table from a folder per class, or from a file of ids per class."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.competition.csvs import Dialect, read_cells, read_header, read_text
from pipeline.competition.guess.files import image_files
from pipeline.competition.paths import is_visible
from pipeline.errors import CompetitionError
from pipeline.events import Listener, ignore

_BITS = frozenset({"-1", "0", "1"})


def class_parts(folder: Path) -> list[Path]:
    """The CSV or text files in `folder`, one per class; where there are none its folders. Empty if fewer than two."""
    parts = [path for path in sorted(folder.iterdir()) if is_visible(path.name)] if folder.is_dir() else []
    files = [path for path in parts if path.suffix.lower() in (".csv", ".txt") and path.is_file()]
    found = files or [path for path in parts if path.is_dir()]
    return found if len(found) > 1 else []


def class_table(folder: Path, out: Path, listen: Listener) -> pd.DataFrame:
    """A column `id` and a column of 0 and 1 for each class.

    A folder holds the images of its class; their ids are paths from the folder of `out`. In a CSV the first column has
    ids, and a column of 0 (or -1) and 1 their values. Text files, and CSVs without values, list positive ids. A cell is
    blank where a file of values lacks an id.

    Raises:
        CompetitionError: there are neither such folders nor such files, or one of them cannot be read.
    """
    parts = class_parts(folder)
    if not parts:
        raise CompetitionError(
            f"{folder}: not a folder of classes",
            expected="a folder of images for each class, or a CSV or text file of ids for each class",
            remedy="give the folder that holds these",
        )
    cells = {path.stem if path.is_file() else path.name: pd.Series(_cells(path, out, listen)) for path in parts}
    table: pd.DataFrame = pd.DataFrame(cells).rename_axis("id").reset_index()
    return table.fillna({name: "" if column.eq("0").any() else "0" for name, column in table.items()})


def _cells(path: Path, out: Path, listen: Listener) -> dict[str, str]:
    """{id: 0 or 1} of one class."""
    if path.is_dir():
        return {str(file): "1" for file in image_files(path, out.absolute().parent)}
    if path.suffix.lower() == ".txt":
        lines = read_text(path, key="the list", encoding=None, listen=listen).splitlines()
        return {line.strip(): "1" for line in lines if line.strip()}
    header = read_header(path, id_column="\0", key="the table", dialect=Dialect(), listen=ignore)
    frame = read_cells(path, id_column=header[0], key="the table", listen=listen)
    values = [name for name in header[1:] if {*frame[name]} <= _BITS]
    bits = ["1" if cell == "1" else "0" for cell in frame[values[0]]] if values else ["1"] * len(frame)
    return dict(zip(frame[header[0]], bits, strict=True))
