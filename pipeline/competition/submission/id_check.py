"""What is wrong with the ids of a submission, in the words of what usually went wrong."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.competition.sample import Sample
from pipeline.errors import listing

_SHOWN = 3


def id_errors(found: Sequence[tuple[int, str]], sample: Sample) -> list[str]:
    """Sentences on lost, repeated, foreign and displaced ids among `found`, the (line, id) of each row."""
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
            f"the rows stand in another order: line {line} holds '{id_}' instead of '{want}'"
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
