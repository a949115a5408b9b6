"""The tables of a page: plain cells, which the template draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.config import Config, changed_keys
from pipeline.run.records import FoldedScores, Scores, SubmissionRecord


class Link(NamedTuple):
    """A cell that leads to another file."""

    text: str
    href: str


class Cells(NamedTuple):
    """A table; a cell is a text, a number, a `Link`, or None where there is no value."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    @property
    def numeric(self) -> list[bool]:
        """Whether a column holds a number."""
        return [any(isinstance(row[place], int | float) for row in self.rows) for place in range(len(self.columns))]


def score_table(scores: Scores, submitted: SubmissionRecord | None) -> Cells:
    """The cross-fitted and in-sample scores with their parts, the forecast, and the further scores."""
    columns = (scores.metric, "score", "from", "to (95 %)", *(f"{scores.part} {number}" for number in _parts(scores)))

    def row(name: str, score: FoldedScores) -> tuple[Any, ...]:
        return (name, score.pooled, *score.interval, *score.folds)

    empty = (None,) * len(_parts(scores))
    rows = [row("cross-fitted: believe this one" if scores.fitted else "out-of-fold", scores.cross_fitted)]
    rows += [row("in-sample: flatters", scores.in_sample)] if scores.fitted else []
    if submitted is not None and submitted.forecast is not None:
        rows.append(("forecast for the test", *submitted.forecast, *empty))
    free = scores.threshold_free
    others = {"mAP": free.map, "mAP of a constant score per label": free.prevalence_map, "macro AUC": free.auc_macro}
    others |= {f"{name}, cross-fitted": score.cross_fitted for name, score in scores.further.items()}
    others |= {f"{name} at threshold 0.5": score.at_half for name, score in scores.further.items() if score.at_half}
    return Cells(columns, [*rows, *((name, value, None, None, *empty) for name, value in others.items())])


def _parts(scores: Scores) -> Sequence[int]:
    return scores.folds if scores.part == "fold" else range(len(scores.cross_fitted.folds))


def key_table(old: Config, configs: Mapping[str, Config], *, first: str) -> Cells:
    """The keys in which one of `configs` differs from `old`; `first` is the heading of the values in `old`."""
    changed = [changed_keys(old, config) for config in configs.values()]
    was = {key: before for one in changed for key, (before, _) in one.items()}
    rows = [
        (key, _value(was[key]), *(_value(one[key][1] if key in one else was[key]) for one in changed))
        for key in sorted(was)
    ]
    return Cells(("key", first, *configs), rows)


def _value(value: object) -> str:
    return "null" if value is None else str(value)


def flat_table(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Rows (dotted key, value) of nested JSON."""
    rows: list[tuple[str, str]] = []
    for key, value in data.items():
        rows += flat_table(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, _value(value))]
    return rows
