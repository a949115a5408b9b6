"""Groups of rows that belong together, guessed from the names of columns and the parts of paths."""

from __future__ import annotations

import re
from collections.abc import Collection

from pipeline.competition.guess.files import FileRule
from pipeline.competition.guess.labels import words_of

_GROUP_WORDS = (
    *("patient", "subject", "person", "case", "group", "series", "study", "clip", "video", "site", "location"),
    *("block", "sheet", "session", "scene", "sequence", "specimen", "slide"),
)
_NO_GROUPS = {
    "age",
    "sex",
    "gender",
    "date",
    "time",
    "year",
    "number",
    "count",
    "size",
    "description",
    "name",
    "weight",
}
_ID_OF_NO_GROUP = {
    *("class", "label", "category", "attribute", "tag", "target", "type", "image", "file", "photo"),
    *("rad", "reader", "rater", "annotator", "annotation", "user", "author", "source", "model"),
}
_FOLDS = 5  # of a config by default: a group column with fewer values cannot be split into them


def guess_groups(
    columns: dict[str, list[str]], id_column: str, rule: FileRule, asked: Collection[str], reasons: list[str]
) -> tuple[dict[str, str] | None, str | None]:
    """The section `groups` and its column: a column called like a patient or site, or a recurring part of the path."""
    names = [
        name
        for name, cells in columns.items()
        if name not in {id_column, rule.column, *asked} and _may_be_group(name, cells)
    ]
    best = max(names, key=_group_rank, default=None)
    if best is not None:
        count = len({*columns[best]})
        reasons.append(f"groups: '{best}' has {count} values in {len(columns[best])} rows")
        return {"column": best}, best
    for word in _GROUP_WORDS:
        regex = rf"({word}[^/]*\d[^/]*)/"
        found = [re.search(regex, cell) for cell in columns[rule.column]]
        parts = {match.group(1) for match in found if match is not None}
        if None not in found and _FOLDS <= len(parts) < len(found):
            reasons.append(f"groups: the paths hold {len(parts)} folders called {word}.. in {len(found)} rows")
            return {"regex": regex, "of": "path" if id_column != rule.column else "id"}, None
    return None, None


def _group_rank(name: str) -> tuple[bool, int]:
    """Ids before others, and patients before their studies."""
    words = words_of(name)
    places = [-place for place, word in enumerate(_GROUP_WORDS) if word in words]
    return "id" in words, max(places, default=-len(_GROUP_WORDS))


def _may_be_group(name: str, cells: list[str]) -> bool:
    words, count = words_of(name), len({*cells})
    called = words & set(_GROUP_WORDS) or ("id" in words and not words & _ID_OF_NO_GROUP)
    recur = _FOLDS <= count < len(cells) and all(cell.strip() for cell in cells)
    return bool(called) and not words & _NO_GROUPS and recur
