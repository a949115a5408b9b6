"""From the text of a label's cell to its target: 0, 1, a number between them, or unknown."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.competition.labels.list_cells import means_nothing
from pipeline.competition.labels.rows import Targets
from pipeline.config import LongLabels, PolicyByLabel, WideLabels
from pipeline.errors import CompetitionError, listing, nearest
from pipeline.events import Listener, Note

Codes = NDArray[np.float32]
"""Targets in [0, 1], or one of the codes below for cells that are not a target by themselves."""

UNCERTAIN, MISSING, WRONG = -1.0, -2.0, -3.0
_KINDS = {UNCERTAIN: "uncertain", MISSING: "missing"}
_WORDS = {"true": 1.0, "false": 0.0}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_VALUES = {"ones": 1.0, "zeros": 0.0, "ignore": np.nan}


@dataclass(frozen=True)
class CellRules:
    """The cells that are allowed beside 0 and 1, and the targets that they get.

    Attributes:
        soft: whether any number in [0, 1] is a target.
        uncertain_values: the texts of uncertain cells; numbers are compared as numbers.
        uncertain: the policy for uncertain cells, for all labels or by label; without one they are refused.
        missing: the policy for blank cells, likewise.
        remedy: the advice in the error on other cells.
    """

    soft: bool = False
    uncertain_values: tuple[str, ...] = ()
    uncertain: PolicyByLabel | None = None
    missing: PolicyByLabel | None = None
    remedy: str = "correct these cells"


_REMEDIES = {
    "wide": "correct these cells, or list only true label columns in competition.labels.columns",
    "long": "correct these cells; if any text except a blank means positive, set labels.filled: true",
}


def rules_of(config: WideLabels | LongLabels) -> CellRules:
    """The rules of a section of the config."""
    return CellRules(
        config.soft, tuple(config.uncertain_values), config.uncertain, config.missing, _REMEDIES[config.format]
    )


def read_codes(cells: NDArray[np.object_] | Sequence[str], rules: CellRules) -> Codes:
    """The code of each text cell, in the shape of `cells`; policies are not applied yet."""
    array = np.asarray(cells, dtype=object)
    places, texts = pd.factorize(array.ravel())
    meant = np.array([_code(text.strip(), rules) for text in texts], dtype=np.float32)
    codes: Codes = meant[places].reshape(array.shape) if len(meant) else np.zeros(array.shape, dtype=np.float32)
    return codes


def _code(text: str, rules: CellRules) -> float:
    if not text:
        return MISSING
    number = _number(text)
    if text in rules.uncertain_values or (
        number is not None and number in [_number(value) for value in rules.uncertain_values]
    ):
        return UNCERTAIN
    if number is None and means_nothing(text):
        return MISSING
    if number is None:
        return _WORDS.get(text.lower(), WRONG)
    return number if number in (0.0, 1.0) or (rules.soft and 0.0 < number < 1.0) else WRONG


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def settle_codes(
    codes: Codes,
    labels: Sequence[str],
    rules: CellRules,
    *,
    name_cell: Callable[[int, int], str],
    path: Path,
    listen: Listener,
) -> Targets:
    """Targets (N, K): `codes`, in which each uncertain or missing cell gets the value of its label's policy.

    Args:
        codes: (N, K) from `read_codes`; they are changed.
        labels: K names.
        rules: the policies.
        name_cell: describes the cell at a row and column, for the error.
        path: the file of the cells.
        listen: gets a note with the number of such cells and their values.

    Raises:
        CompetitionError: a cell is wrong, a cell needs a policy that is not set, or a policy names an unknown label.
    """
    for code, policy in ((UNCERTAIN, rules.uncertain), (MISSING, rules.missing)):
        values = np.array([_policy_value(policy, label, code) for label in labels], dtype=np.float32)
        _refuse_unknown_names(policy, labels, kind=_KINDS[code])
        open_cells = codes == code
        if open_cells.any():
            np.copyto(codes, values, where=open_cells)
            _note_counts(codes[open_cells], _KINDS[code], path, listen)
    rows, columns = np.nonzero(codes < 0)
    if len(rows):
        named = [name_cell(row, column) for row, column in zip(rows[:5].tolist(), columns[:5].tolist(), strict=True)]
        raise CompetitionError(
            f"{path}: {len(rows)} label cells are not 0 or 1",
            expected="a number from 0 to 1 in every label cell" if rules.soft else "0 or 1 in every label cell",
            got=f"{listing(named)}{f' and {len(rows) - 5} more' if len(rows) > 5 else ''}",
            remedy=_remedy(codes[rows, columns], rules),
        )
    return codes


def _policy_value(policy: PolicyByLabel | None, label: str, code: float) -> float:
    """The target of the cells with this code; the code itself without a policy."""
    if isinstance(policy, dict):
        policy = policy.get(label, policy.get("default"))
    return code if policy is None else _VALUES[policy]


def _refuse_unknown_names(policy: PolicyByLabel | None, labels: Sequence[str], *, kind: str) -> None:
    unknown = [name for name in policy if name not in (*labels, "default")] if isinstance(policy, dict) else []
    if unknown:
        raise CompetitionError(
            f"competition.labels.{kind}: there is no label '{unknown[0]}'{nearest(unknown[0], labels)}",
            expected=f"default, or labels out of {listing(labels, 12)}",
            remedy="correct the name",
        )


def _note_counts(values: Targets, kind: str, path: Path, listen: Listener) -> None:
    ones, zeros, unknown = int((values == 1).sum()), int((values == 0).sum()), int(np.isnan(values).sum())
    if ones + zeros + unknown:
        listen(Note(f"{path}: {kind} label cells: {ones} count as positive, {zeros} as negative, {unknown} as unknown"))


def _remedy(wrong: Codes, rules: CellRules) -> str:
    ways = [rules.remedy]
    ways += ["competition.labels.missing sets the value of blank cells"] if (wrong == MISSING).any() else []
    ways += ["competition.labels.uncertain sets the value of uncertain cells"] if (wrong == UNCERTAIN).any() else []
    ways += ["labels.soft: true allows values between 0 and 1"] if (wrong == WRONG).any() and not rules.soft else []
    return "; ".join(ways)
