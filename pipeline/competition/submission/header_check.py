"""What is wrong with a submission's header, in the words of what usually went wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.errors import listing

_INDEX = re.compile(r"|index|Unnamed: \d+")


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
        return [f"the columns stand in another order: {listing(header, 6)} instead of {listing(wanted, 6)}"]
    if [name.strip() for name in header] == [name.strip() for name in wanted]:
        return ["the names of the columns have other blanks around them than the sample's"]
    missing = [name for name in wanted if name not in header]
    foreign = [name for name in header if name not in wanted]
    parts = [f"without the column{'s' * (len(missing) > 1)} {listing(missing)}"] if missing else []
    parts += [f"with the foreign column{'s' * (len(foreign) > 1)} {listing(map(repr, foreign))}"] if foreign else []
    parts += ["with a column twice"] if len(set(header)) < len(header) else []
    return [f"the header is wrong: {', '.join(parts)}"]
