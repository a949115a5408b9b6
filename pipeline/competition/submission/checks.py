"""The faults of a submission's header, ids and cells, in sentences that name the usual cause."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pipeline.competition.submission.format import SubmissionFormat, SubmissionKind
from pipeline.competition.submission.sample import Sample
from pipeline.errors import listing, nearest

CellCheck = Callable[[str, SubmissionFormat], str]
"""Returns why a cell is rejected, or ""."""

_SHOWN = 3
_INDEX = re.compile(r"|index|Unnamed: \d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity|na|null|none)", re.IGNORECASE)


def header_errors(header: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """One sentence if `header` is not exactly `wanted`, none if it is."""
    if list(header) == list(wanted):
        return []
    if _INDEX.fullmatch(header[0]) and list(header[1:]) == list(wanted):
        return [f"it has an index column '{header[0]}' before '{wanted[0]}': write it with index=False"]
    for delimiter, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) < len(wanted) and delimiter.join(wanted) == ",".join(header):
            return [f"its columns are separated by {name} instead of commas"]
    if sorted(header) == sorted(wanted):
        return [f"the columns are in another order: {listing(header, 6)} instead of {listing(wanted, 6)}"]
    if [name.strip() for name in header] == [name.strip() for name in wanted]:
        return ["the names of the columns have other blanks around them than the sample's"]
    missing = [name for name in wanted if name not in header]
    foreign = [name for name in header if name not in wanted]
    parts = [f"without the column{'s' * (len(missing) > 1)} {listing(missing)}"] if missing else []
    parts += [f"with the foreign column{'s' * (len(foreign) > 1)} {listing(map(repr, foreign))}"] if foreign else []
    parts += ["with a column twice"] if len(set(header)) < len(header) else []
    return [f"the header is wrong: {', '.join(parts)}"]


def id_errors(found: Sequence[tuple[int, str]], sample: Sample) -> list[str]:
    """Sentences on repeated, missing, foreign and displaced ids in `found`, the (line, id) of each row."""
    asked, given = set(sample.ids), {id_ for _, id_ in found}
    errors = []
    first = {id_: line for line, id_ in reversed(found)}
    again = [f"'{id_}' on line {line}" for line, id_ in found if first[id_] != line]
    if again:
        errors.append(f"{len(again)} rows repeat an id ({listing(again, _SHOWN)})")
    missing = [f"'{id_}'" for id_ in sample.ids if id_ not in given]
    if missing:
        errors.append(f"{len(missing)} ids of the sample are missing ({listing(missing, _SHOWN)})")
    foreign = [(line, id_) for line, id_ in found if id_ not in asked]
    if foreign:
        where = listing((f"'{id_}' on line {line}" for line, id_ in foreign), _SHOWN)
        errors.append(f"{len(foreign)} ids are not the sample's ({where}){_likely_cause(foreign[0][1], asked)}")
    if not errors:
        moved = [(line, id_, want) for (line, id_), want in zip(found, sample.ids, strict=True) if id_ != want]
        errors += [
            f"the rows are in another order: line {line} holds '{id_}' instead of '{want}'"
            for line, id_, want in moved[:1]
        ]
    return errors


def _likely_cause(id_: str, asked: set[str]) -> str:
    if id_.strip() in asked:
        return ": there are blanks around them"
    if any(known.lstrip("0") == id_.lstrip("0") for known in asked if known.isdecimal()) and id_.isdecimal():
        return ": leading zeros were lost or added"
    stem = id_.rpartition(".")[0]
    if stem in asked or any(known.rpartition(".")[0] == id_ for known in asked):
        return ": a file extension was added or lost"
    return ""


def _binary_fault(cell: str, form: SubmissionFormat) -> str:  # noqa: ARG001 (one signature for all kinds)
    if cell in ("0", "1"):
        return ""
    if not cell.strip():
        return "blank instead of the integer 0 or 1"
    if cell.strip().lower() in ("true", "false"):
        return "a truth value instead of the integer 0 or 1"
    if _NUMBER.fullmatch(cell) and float(cell) in (0.0, 1.0):
        return "0 or 1 not written as an integer"
    return "not the integer 0 or 1"


def _probability_fault(cell: str, form: SubmissionFormat) -> str:  # noqa: ARG001 (one signature for all kinds)
    if not cell.strip():
        return "blank instead of a probability"
    if _NOT_FINITE.fullmatch(cell.strip()):
        return "missing or not finite"
    if not _NUMBER.fullmatch(cell):
        return "not a number"
    return "" if 0.0 <= float(cell) <= 1.0 else "outside [0, 1]"


def _names_fault(cell: str, form: SubmissionFormat) -> str:
    if cell == form.empty_token:
        return ""
    if not cell.strip():
        wanted = f"the token '{form.empty_token}'" if form.empty_token else "nothing at all"
        return f"blank where a row without labels holds {wanted}"
    if cell != cell.strip():
        return "blanks around the names"
    return _items_fault(cell, form)


def _ranked_fault(cell: str, form: SubmissionFormat) -> str:
    if not cell.strip():
        return "blank instead of names"
    if cell != cell.strip():
        return "blanks around the names"
    return f"more than {form.k} names" if len(form.layout.split(cell) or ()) > form.k else _items_fault(cell, form)


def _items_fault(cell: str, form: SubmissionFormat) -> str:
    items = form.layout.split(cell)
    if form.cells == "vector":
        example = form.layout.join([form.layout.bits[0]] * len(form.labels))
        good = items is not None and len(items) == len(form.labels) and set(items) <= set(form.layout.bits)
        return "" if good else f"not written as {example if len(example) < 40 else f'{len(form.labels)} values'}"
    if items is None:
        return f"not written as {form.layout.join(form.labels[:2])}"
    return _listed_names_fault(items, form) if items or form.cells == "joined" else ""


def _listed_names_fault(names: list[str], form: SubmissionFormat) -> str:
    unknown = [name for name in names if name not in form.label_set]
    if unknown and not all(name.strip() for name in names):
        return "a separator without a name beside it"
    if unknown and unknown[0].strip() in form.label_set:
        return "blanks around a name"
    if unknown:
        return f"not a label: '{unknown[0]}'{nearest(unknown[0], form.labels)}"
    return "a label twice" if len(set(names)) < len(names) else ""


CELL_CHECKS: dict[SubmissionKind, CellCheck] = {
    "wide_binary": _binary_fault,
    "wide_probability": _probability_fault,
    "delimited": _names_fault,
    "ranked": _ranked_fault,
    "long_binary": _binary_fault,
    "long_probability": _probability_fault,
}
