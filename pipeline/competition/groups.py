"""Groups of rows that no fold may split. Groups by near-duplicate images need pixels: see run/image_groups.py."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pipeline.competition.csvs import column_of, dialect_of, read_table, refuse_blank
from pipeline.competition.paths import image_paths
from pipeline.config import (
    CompetitionConfig,
    GroupChunks,
    GroupColumn,
    GroupFile,
    GroupImages,
    GroupPattern,
    GroupSource,
)
from pipeline.errors import CompetitionError, listing

_SECONDS = 20.0  # a usual expression searches a million ids in two


def read_groups(competition: CompetitionConfig, frame: pd.DataFrame, path: Path) -> tuple[str, ...] | None:
    """The group of each row of `frame`, the training table read from `path`; see `join_groups`.

    None if no groups are configured, or only groups by near-duplicate images.

    Raises:
        CompetitionError: a column or file is missing, or a row has no group.
    """
    found = [
        _groups_of(source, competition, frame, path)
        for source in competition.groups or ()
        if not isinstance(source, GroupImages)
    ]
    return join_groups(frame[competition.id].tolist(), found) if found else None


def join_groups(ids: Sequence[str], sources: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """One group per row: a single source keeps its names, several sources are connected."""
    return tuple(sources[0]) if len(sources) == 1 else connect(ids, sources)


def connect(
    ids: Sequence[str], sources: Sequence[Sequence[Hashable]], *, links: NDArray[np.int64] | None = None
) -> tuple[str, ...]:
    """One group per row, named by its smallest id: rows that share a group in any source share the result's group.

    Args:
        ids: N distinct ids.
        sources: N group names from each source.
        links: (L, 2) further pairs of rows that belong together.
    """
    edges = [] if links is None else [links]
    for groups in sources:
        first: dict[Hashable, int] = {}
        edges.append(np.array([(row, first.setdefault(group, row)) for row, group in enumerate(groups)], np.int64))
    ends = np.concatenate(edges).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(ends), np.uint8), (ends[:, 0], ends[:, 1])), shape=(len(ids), len(ids)))
    parts = connected_components(graph, directed=False)[1].tolist()
    name: dict[int, str] = {}
    for part, id_ in zip(parts, ids, strict=True):
        name[part] = min(id_, name.get(part, id_))
    return tuple(name[part] for part in parts)


def describe_source(source: GroupSource) -> str:
    """A source as in a config file, without defaults."""
    inside = ", ".join(f"{key}: {value}" for key, value in source.model_dump(exclude_defaults=True).items())
    return f"{{{inside}}}"


def describe_groups(groups: Sequence[str], sources: Sequence[GroupSource]) -> str:
    """A sentence with the number of groups, the largest group and the sources."""
    sizes = pd.Series(groups).value_counts()
    largest = min(sizes.index[sizes == sizes.iloc[0]])
    return (
        f"{len(sizes)} groups of {len(groups)} rows, from {' and '.join(map(describe_source, sources))}; "
        f"the largest, '{largest}', has {sizes.iloc[0]} rows"
    )


def _groups_of(source: GroupSource, competition: CompetitionConfig, frame: pd.DataFrame, path: Path) -> list[str]:
    ids = frame[competition.id].tolist()
    if isinstance(source, GroupColumn):
        groups = column_of(frame, source.column, path=path, key="competition.groups.column")
        refuse_blank(groups, ids, path=path, column=source.column)
        return groups
    if isinstance(source, GroupPattern):
        return _by_pattern(source, ids, _texts(source, competition, frame, path))
    if isinstance(source, GroupFile):
        return _from_file(source, competition, ids)
    assert isinstance(source, GroupChunks)
    within = [""] * len(ids)
    if source.within is not None:
        within = column_of(frame, source.within, path=path, key="competition.groups.within")
    return _by_chunks(within, source.chunks)


def _texts(source: GroupPattern, competition: CompetitionConfig, frame: pd.DataFrame, path: Path) -> list[str]:
    """The texts for the pattern: the ids, or the first file of each image relative to the competition's root."""
    if source.of == "id":
        return [str(id_) for id_ in frame[competition.id]]
    root = Path(competition.root)
    first = [files[0] for files in image_paths(competition, frame, path, test=False)]
    return [(file.relative_to(root) if file.is_relative_to(root) else file).as_posix() for file in first]


def _by_pattern(source: GroupPattern, ids: Sequence[str], texts: Sequence[str]) -> list[str]:
    pattern = re.compile(source.regex)
    with _limited(source):
        found = [pattern.search(text) for text in texts]
    groups = [None if match is None else match.group(1) for match in found]
    bare = [id_ for id_, group in zip(ids, groups, strict=True) if not group]
    if bare:
        raise CompetitionError(
            f"competition.groups.regex='{source.regex}' finds no group in the {source.of} of {len(bare)} rows",
            expected="a first capture in every row",
            got=listing(bare),
            remedy="widen the expression, for example with an alternative for these rows",
        )
    return [str(group) for group in groups]


@contextlib.contextmanager
def _limited(source: GroupPattern) -> Iterator[None]:
    """Raise CompetitionError in the block after some seconds: Python looks for signals while it matches.

    There is no limit on Windows, nor in a thread, which gets no signals.
    """
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise CompetitionError(
            f"competition.groups.regex='{source.regex}' takes more than {_SECONDS:g} seconds to search in all rows",
            expected="an expression that matches in one way only",
            remedy="do not repeat what is repeated already, as in (a+)+; write [^_]+ rather than .+ before a _",
        )

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _from_file(source: GroupFile, competition: CompetitionConfig, ids: Sequence[str]) -> list[str]:
    path = Path(competition.root) / source.file
    dialect = dialect_of(competition)
    table = read_table(path, id_column=competition.id, key="competition.groups.file", dialect=dialect)
    values = column_of(table, source.column, path=path, key="competition.groups.column")
    group_of = dict(zip(table[competition.id], values, strict=True))
    bare = [id_ for id_ in ids if not group_of.get(id_, "").strip()]
    if bare:
        raise CompetitionError(
            f"{path}: column '{source.column}' gives no group to {len(bare)} training rows",
            expected="a row for each id of the training table",
            got=f"none for {listing(bare)}",
            remedy="add them; a row without companions gets its own id as its group",
        )
    return [group_of[id_] for id_ in ids]


def _by_chunks(within: Sequence[str], size: int) -> list[str]:
    """Group names such as `site3 from row 48`; rows are counted from 0, in file order, for each value of `within`."""
    seen: dict[str, int] = {}
    groups = []
    for value in within:
        row = seen.get(value, 0)
        seen[value] = row + 1
        groups.append(f"{value} from row {row - row % size}".strip())
    return groups
