"""What may stand in one cell of a submission, by kind: `fault_of(kind)(cell, form)` is a reason to reject it, or ""."""

from __future__ import annotations

import re
from collections.abc import Callable

from pipeline.competition.submission.format import SubmissionFormat, SubmissionKind
from pipeline.errors import nearest

CellCheck = Callable[[str, SubmissionFormat], str]

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity|na|null|none)", re.IGNORECASE)


def fault_of(kind: SubmissionKind) -> CellCheck:
    """The check of this kind's cells."""
    return _CHECKS[kind]


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
    return _listed_names_fault(cell.split(form.separator), form)


def _ranked_fault(cell: str, form: SubmissionFormat) -> str:
    names = cell.split(form.separator)
    if not cell.strip():
        return "blank instead of names"
    if cell != cell.strip():
        return "blanks around the names"
    return f"more than {form.k} names" if len(names) > form.k else _listed_names_fault(names, form)


def _listed_names_fault(names: list[str], form: SubmissionFormat) -> str:
    unknown = [name for name in names if name not in form.label_set]
    if unknown and not all(name.strip() for name in names):
        return "a separator without a name beside it"
    if unknown and unknown[0].strip() in form.label_set:
        return "blanks around a name"
    if unknown:
        return f"not a label: '{unknown[0]}'{nearest(unknown[0], form.labels)}"
    return "a label stands twice" if len(set(names)) < len(names) else ""


_CHECKS: dict[SubmissionKind, CellCheck] = {
    "wide_binary": _binary_fault,
    "wide_probability": _probability_fault,
    "delimited": _names_fault,
    "ranked": _ranked_fault,
    "long_binary": _binary_fault,
    "long_probability": _probability_fault,
}
