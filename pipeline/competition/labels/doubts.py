"""Notes on labels that were read as written, but are likely not what was meant. `check` makes them warnings."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.competition.labels.list_cells import means_nothing
from pipeline.competition.labels.rows import LabelledRows, Source
from pipeline.errors import listing
from pipeline.events import Note

_SEPARATORS = re.compile(r"[,;|/\t\u3000\u3001\uff0c\uff1b\uff5c]")  # the last ones are of East Asian texts
_NAMES_IN_CELLS = ("delimited", "columns", "long")


def note_doubts(rows: LabelledRows, others: Sequence[str], source: Source) -> None:
    """Send a note with a remedy for each kind of doubt; `others` are the columns that are not used."""
    config: Any = source.competition.labels
    if config.format not in _NAMES_IN_CELLS or getattr(config, "classes", None) is not None:
        found = [_alike(rows.labels)] if config.format == "wide" else []
    else:
        found = [_for_nothing(rows.labels), _alike(rows.labels), _torn(rows.labels, config)]
        found += list(_more_columns(rows, others, config))
    for doubt in found:
        if doubt is not None:
            source.listen(doubt._replace(sentence=f"{source.path}: {doubt.sentence}"))


def _for_nothing(labels: Sequence[str]) -> Note | None:
    names = [name for name in labels if means_nothing(name)]
    if not names:
        return None
    return Note(
        f"{len(names)} labels read like a missing value: {listing(map(repr, names))}",
        kind="label_for_nothing",
        remedy=f"if this means no label, set competition.labels.empty_tokens: [{', '.join(map(repr, names))}]; "
        "if it is a label, list all labels in competition.labels.classes",
    )


def _alike(labels: Sequence[str]) -> Note | None:
    spellings = defaultdict(list)
    for name in labels:
        spellings[_seen(name)].append(ascii(name))
    alike = [" = ".join(names) for names in spellings.values() if len(names) > 1]
    if not alike:
        return None
    return Note(
        f"{len(alike)} labels occur in several spellings, equal but for capitals or what cannot be seen: "
        f"{listing(alike)}",
        kind="labels_alike",
        remedy="spell each label in one way in the table",
    )


def _seen(name: str) -> str:
    """A name without the differences that a reader overlooks: capitals, widths, blanks, invisible characters."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return " ".join("".join(letter for letter in plain if unicodedata.category(letter) != "Cf").split())


def _torn(labels: Sequence[str], config: Any) -> Note | None:
    """Names such as `cat,dog` beside a label `cat`: two separators are in use."""
    if config.format != "delimited" or config.cells != "joined" or config.names is not None:
        return None
    known = set(labels)
    names = [
        name for name in labels if len(parts := _SEPARATORS.split(name)) > 1 and known & set(map(str.strip, parts))
    ]
    if not names:
        return None
    return Note(
        f"{len(names)} labels hold another separator and the name of a label: {listing(map(ascii, names))}",
        kind="labels_torn",
        remedy=f"write all cells of the table with the separator {config.separator!r}",
    )


def _more_columns(rows: LabelledRows, others: Sequence[str], config: Any) -> Iterator[Note]:
    """Columns with the same names as the labels, or called like the label column but for a number."""
    used = config.columns if config.format == "columns" else [getattr(config, "label_column", None) or config.column]
    families = {re.sub(r"\d+", "#", name) for name in used if re.search(r"\d", name)}
    labels = {name for name in rows.labels if not re.fullmatch(r"[\d.]+", name)}
    separator = getattr(config, "separator", None) if config.format == "delimited" else None
    found = []
    for name in others:
        cells = {cell.strip() for cell in rows.frame[name].unique()} - {""}
        parts = {part.strip() for cell in cells for part in (cell.split(separator) if separator else [cell])}
        if re.sub(r"\d+", "#", name) in families or (len(parts & labels) > 1 and 2 * len(parts & labels) >= len(parts)):
            found.append(name)
    if found:
        columns = listing([*dict.fromkeys([*used, *found])], 100)
        yield Note(
            f"columns that read like labels are not used: {listing(found)}",
            kind="label_columns",
            remedy=f"if each of them names a label, set competition.labels: {{format: columns, columns: [{columns}]}}",
        )
