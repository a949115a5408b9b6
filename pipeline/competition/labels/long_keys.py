"""Keys of a long table, `<id><separator><label>`, split into id and label even if the id holds the separator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.competition.labels.rows import in_order
from pipeline.errors import CompetitionError, listing
from pipeline.events import Listener, Note

_REMEDY = "list the labels in competition.labels.classes, or correct competition.labels.separator"


def split_keys(
    keys: Sequence[str], labels: Sequence[str], separator: str, *, path: Path, listen: Listener
) -> tuple[list[str], list[str]]:
    """The ids and labels of `keys`. If several labels end a key, the longest counts, and a note lists such keys.

    Raises:
        CompetitionError: a key ends in no label, or its id would be empty.
    """
    known, lengths = set(labels), sorted({len(label) for label in labels}, reverse=True)
    ids, names, without, doubtful = [], [], [], []
    for key in keys:
        ends = [key[-length:] for length in lengths if key[-length:] in known]
        ends = [label for label in ends if key.removesuffix(label).endswith(separator)]
        ends = [label for label in ends if len(key) > len(separator) + len(label)]
        if not ends:
            without.append(key)
            continue
        ids.append(key[: -len(separator) - len(ends[0])])
        names.append(ends[0])
        doubtful += [key] if len(ends) > 1 else []
    if without:
        raise CompetitionError(
            f"{path}: {len(without)} keys do not end in a label",
            expected=f"'<id>{separator}<label>' with labels {listing(labels, 12)}",
            got=listing(without),
            remedy=_REMEDY,
        )
    if doubtful:
        listen(Note(f"{path}: {len(doubtful)} keys end in two labels, and the longer counts: {listing(doubtful)}"))
    return ids, names


def find_suffixes(keys: Sequence[str], separator: str, path: Path) -> tuple[str, ...]:
    """The labels of `keys`: those of the only split in which each id has each label.

    Ids and labels may hold the separator: every set of suffixes that are frequent enough is tried.

    Raises:
        CompetitionError: there is no such split, or more than one.
    """
    distinct = sorted(set(keys))
    counts = Counter(suffix for key in distinct for suffix in _suffixes(key, separator))
    ways = {_last_parts(distinct, separator)}
    ways |= {_frequent_suffixes(distinct, separator, counts, least) for least in _thresholds(counts, len(distinct))}
    complete = [labels for labels in ways if labels and _is_complete(distinct, labels, separator)]
    if len(complete) == 1:
        return in_order(complete[0])
    readings = [f"{len(labels)} labels ({listing(sorted(labels), 3)})" for labels in sorted(complete, key=len)]
    raise CompetitionError(
        f"{path}: the labels cannot be separated from the ids",
        expected=f"'<id>{separator}<label>' with each label for each id, in one way",
        got="; ".join(readings) if readings else f"keys such as {listing(keys, 3)}",
        remedy=_REMEDY,
    )


def _suffixes(key: str, separator: str) -> list[str]:
    """The possible labels of a key, the longest first."""
    parts = key.split(separator)
    return [separator.join(parts[start:]) for start in range(1, len(parts)) if any(parts[:start])]


def _last_parts(keys: Sequence[str], separator: str) -> frozenset[str]:
    ends = [_suffixes(key, separator) for key in keys]
    return frozenset(found[-1] for found in ends) if all(ends) else frozenset()


def _thresholds(counts: Counter[str], keys: int) -> list[int]:
    """The possible numbers of ids: a complete table with K labels has a K-th as many ids as keys."""
    return sorted({count for count in counts.values() if count > 1 and keys % count == 0})


def _frequent_suffixes(keys: Sequence[str], separator: str, counts: Counter[str], least: int) -> frozenset[str]:
    found = set()
    for key in keys:
        longest = next((suffix for suffix in _suffixes(key, separator) if counts[suffix] >= least), None)
        if longest is None:
            return frozenset()
        found.add(longest)
    return frozenset(found)


def _is_complete(keys: Sequence[str], labels: frozenset[str], separator: str) -> bool:
    """Whether the keys, split before their longest label, are every id with every label."""
    ids = {key[: -len(suffix) - len(separator)] for key in keys if (suffix := _longest(key, labels, separator))}
    return len(ids) * len(labels) == len(keys)


def _longest(key: str, labels: frozenset[str], separator: str) -> str:
    return next((suffix for suffix in _suffixes(key, separator) if suffix in labels), "")
