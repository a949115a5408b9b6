"""Writes files whole or not at all, and reads them with clear errors where they are missing or broken.

Every file is written to a temporary name, flushed to the disk and renamed. Nothing here executes what it reads: JSON,
CSV and parquet only.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
from pyarrow import parquet

from pipeline.errors import RunError, listing
from pipeline.machine import regular

TEMPORARY_PREFIX = ".writing-"
_TEMPORARY = re.compile(re.escape(TEMPORARY_PREFIX) + r"[0-9a-f]{8}-[0-9]{1,9}-.")
_OUTPUT_MARK = b"q2l-pipeline"
_ABANDONED_SECONDS = 24 * 3600  # for files of other hosts, whose processes cannot be checked


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path beside `path`, flush what it wrote, then rename it to `path`.

    Raises:
        RunError: the disk is full or the folder cannot be written; `path` is as it was.
    """
    temporary = path.with_name(temporary_name(path.name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        flush(temporary)
        temporary.replace(path)
    except OSError as error:
        raise RunError(
            f"{path} cannot be written",
            got=error.strerror or str(error),
            remedy="free some space, or make the folder writable; the same command goes on from what was saved",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # a name that is too long for the disk
            temporary.unlink(missing_ok=True)


def require_ours(path: Path, is_ours: Callable[[Path], bool]) -> None:
    """Refuse to replace a file that this pipeline did not write.

    Args:
        path: the path of an output, given by the user.
        is_ours: whether the file at `path` seems to be an earlier output.

    Raises:
        RunError: `path` exists and `is_ours` is False for it.
    """
    if path.exists() and not (path.is_file() and is_ours(path)):
        raise RunError(
            f"{path} is there already, and is not an earlier output of this command",
            remedy="give the name of a new file, or move the old one away",
        )


def flush(path: Path) -> None:
    """Wait until the content of `path` is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def temporary_name(name: str, *, host: str | None = None, process: int | None = None) -> str:
    """The name of a file while it is written; it holds a short hash of the host and the process number."""
    return f"{TEMPORARY_PREFIX}{_mark(host or socket.gethostname())}-{process or os.getpid()}-{name}"


def _mark(host: str) -> str:
    return hashlib.sha256(host.encode()).hexdigest()[:8]


def is_temporary(name: str) -> bool:
    """Whether `name` comes from `temporary_name`."""
    return _TEMPORARY.match(name) is not None


def entries(folder: Path, name: str) -> list[Path]:
    """Everything in `folder` whose name matches the regular expression `name`, sorted: folders, files and links."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(name, path.name))


def delete_files(folder: Path, names: Collection[str]) -> None:
    """Delete these files and all temporary ones directly in `folder`, then the folder itself if it is empty.

    A link to a folder is not followed. A link to a file is deleted, but not its target.
    """
    if folder.is_symlink() or not folder.is_dir():
        return
    for path in folder.iterdir():
        if (path.name in names or is_temporary(path.name)) and (path.is_symlink() or path.is_file()):
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds something else
        folder.rmdir()


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Delete the temporary files of dead processes; a living one may be training another fold of this run.

    Several hosts may share the folders, and each knows only its own processes. A file of another host is deleted when
    it has not changed for a day.
    """
    for folder in folders:
        for path in folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ():
            if is_temporary(path.name) and path.is_file() and _is_left(path):
                path.unlink(missing_ok=True)


def _is_left(temporary: Path) -> bool:
    host, owner = temporary.name.removeprefix(TEMPORARY_PREFIX).split("-")[:2]
    if host == _mark(socket.gethostname()):
        return not psutil.pid_exists(int(owner))
    try:
        return time.time() - temporary.stat().st_mtime > _ABANDONED_SECONDS
    except FileNotFoundError:  # its process has just renamed it
        return False


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with plain line ends."""
    write_atomically(path, lambda temporary: temporary.write_bytes(text.encode("utf-8")))


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON. Raises ValueError for a float that is not finite."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records))


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write `frame` as CSV without an index column."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write `frame` as parquet without an index column."""
    write_atomically(path, lambda temporary: frame.to_parquet(temporary, index=False))


def write_marked_parquet(path: Path, frame: pd.DataFrame, written_with: Collection[Path], *, written: bool) -> None:
    """As `write_parquet`, with the digests of the files that were written together with it in the metadata.

    Before these are `written`, any content of theirs is an output: a kill may leave the old one or the new one.
    """
    digests = json.dumps({file.name: _digest(file) if written else "" for file in written_with})
    table = pa.Table.from_pandas(frame, preserve_index=False)
    marked = table.replace_schema_metadata({**(table.schema.metadata or {}), _OUTPUT_MARK: digests})
    write_atomically(path, lambda temporary: parquet.write_table(marked, temporary))


def marked_outputs(path: Path) -> dict[str, str]:
    """The file names and digests that `write_marked_parquet` noted in `path`; none for any other file."""
    try:
        digests = json.loads((parquet.read_schema(regular(path)).metadata or {})[_OUTPUT_MARK])
    except (OSError, ValueError, KeyError):
        return {}
    return {path.name: "", **digests}


def is_marked_output(path: Path, beside: Path) -> bool:
    """Whether `path` is still as it was written together with the parquet file `beside`."""
    return path.is_file() and marked_outputs(beside).get(path.name) in ("", _digest(path))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _all_finite(column: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(column) and bool(np.isfinite(column.to_numpy()).all())


def read_text(path: Path) -> str:
    """The UTF-8 text in `path`. Raises RunError where it is missing, not a regular file, or cannot be read."""
    try:
        return regular(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path} cannot be read: {error}", remedy="restore it, or start with --fresh") from None


def read_json(path: Path) -> Any:
    """The JSON in `path`. Raises RunError where it is missing or broken, or holds a number that is not finite."""
    text = read_text(path)
    try:
        return parse_json(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is not valid JSON: {error}", remedy="restore it, or start with --fresh") from None


def parse_json(text: str) -> Any:
    """The JSON in `text`. Raises ValueError where it is broken, or holds a number that is not finite."""
    return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _missing(path: Path) -> RunError:
    return RunError(f"{path} is missing", remedy="finish the run first: the same run_cv.py command continues it")


def read_folds(path: Path) -> pd.DataFrame:
    """The `folds.csv` of a run, indexed by id, with the columns `group` (text, empty without groups) and `fold` (int).

    Raises:
        RunError: it is missing or unreadable, repeats an id, or holds no row or a fold below -1.
    """
    try:
        text = read_text(path)
        frame = pd.read_csv(io.StringIO(text), dtype={"id": str, "group": str, "fold": int}, keep_default_na=False)
        folds = frame.set_index("id")[["group", "fold"]]
    except (ValueError, KeyError, OverflowError) as error:
        raise RunError(f"{path} is damaged: {error}", remedy="restore it, or start over with --fresh") from None
    if folds.index.has_duplicates or folds["fold"].min() < -1 or folds.empty:
        raise RunError(
            f"{path} is damaged",
            expected="each id once, with a fold from -1 on",
            remedy="restore it, or start over with --fresh",
        )
    return folds


def read_predictions(path: Path, labels: list[str]) -> pd.DataFrame:
    """The columns `labels` of a parquet file of predictions, indexed by id (strings); reads no other columns.

    Raises:
        RunError: the file is missing or unreadable, lacks one of the labels, repeats an id, or holds a number that
            is not finite.
    """
    try:
        names = parquet.read_schema(regular(path)).names
        missing = [name for name in ["id", *labels] if name not in names]
        frame = pd.read_parquet(path, columns=[name for name in ["id", *labels] if name in names])
        repeated = not missing and bool(frame["id"].duplicated().any())
    except FileNotFoundError:
        raise _missing(path) from None
    except Exception as error:  # noqa: BLE001 (pyarrow and pandas raise errors of any type on damaged files)
        raise RunError(f"{path} is not readable as parquet: {error}", remedy="start with --fresh") from None
    if missing or repeated:
        raise RunError(
            f"{path} does not fit this run",
            expected=f"unique ids and a column for each of the {len(labels)} labels",
            got=f"no column {listing(missing)}" if missing else "repeated ids",
            remedy="start with --fresh",
        )
    frame = frame.astype({"id": str}).set_index("id")
    bad = [name for name in frame.columns if not _all_finite(frame[name])]
    if bad:
        raise RunError(
            f"{path} holds predictions that are not finite numbers",
            got=f"in the columns {listing(bad)}",
            remedy="start with --fresh; if it comes again, lower train.lr",
        )
    return frame
